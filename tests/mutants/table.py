"""All mutants, in the order of what they break."""

from __future__ import annotations

from typing import Final

from tests.mutants.calls import CALLS
from tests.mutants.ledger import LEDGER
from tests.mutants.proof import PROOF

MUTANTS: Final = tuple(sorted((*LEDGER, *CALLS, *PROOF), key=lambda mutant: mutant.guards))
