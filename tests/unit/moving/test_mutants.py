"""Each clause of moving a slot, switched off, is missed: the explorer finds what it prevents."""

import pytest
from tests.unit.moving.mutants import MUTANTS, Mutant, find

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.clause for one in MUTANTS])
def test_a_clause_that_is_switched_off_is_missed(mutant: Mutant) -> None:
    found = find(mutant)
    assert found.trace is not None, f"nothing wrong in {found.states} states"
