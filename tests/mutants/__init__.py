"""Planted bugs, each of which has to turn the tests of the rule that it breaks red.

`make mutants` copies the tree, plants one bug after the other into the copy, and runs only the
tests that are named beside it. A bug that they do not find is a gap in the tests. At each rule,
docs/invariants.md names the bugs that guard it; `tests/test_mutants.py` sees to it that they can
still be planted.

Rules about what the product does not have yet (payments and their callbacks, redemption codes)
have none.
"""
