"""Bounds of what people set, where several apps have the same: REST and the Django admin alike."""

from typing import Final

INTEGER_MAX: Final = 2**31 - 1  # what a whole number's column takes; of limits, too
NUMBER_MAX: Final = 1_000_000  # of weights, and of priorities that providers give to routes
DESCRIPTION_LENGTH_MAX: Final = 10_000
