"""A replicated shard under faults keeps its promises; without one of its clauses it does not."""

import pytest
from tests.unit.sim.cluster.beside import BESIDE
from tests.unit.sim.cluster.chaos import (
    SHAPES,
    Chaos,
    as_it_runs,
    drawn,
    terse,
    with_cuts,
    with_handovers,
    with_reads,
    with_resizes,
    with_sizes_back,
)
from tests.unit.sim.cluster.cluster import PLAIN, run
from tests.unit.sim.cluster.mutants import MUTANTS, Mutant, found

pytestmark = pytest.mark.no_cover
"""It would double their time, and tests of the parts reach every branch."""

SEEDS = 50
"""`make test` runs the first thousand of them besides."""
BATCH = 25
HANDOVER_SEEDS = 50
RESIZE_SEEDS = 25

KEPT = {
    49: "members dropped before they had copied anything did not count in a failover",
    534: "a disk had sworn the epoch to another candidate, and obeyed nobody",
    640: "a late word made a copy leave that had joined, and its greetings were taken for late",
    6401: "the leader after a roll-back was lost before its ISR held what it had adopted",
}
"""Seeds that have found something, or would again."""


KEPT_BACK = {
    59: "the record that went back counted one copy, and the processes of the others were ended",
    67: "a candidate of a time that was taken back led on, and a copy cut what was acknowledged",
    262: "an epoch was given to the same life again, and it held on to its record of before",
}
"""Likewise, of `with_sizes_back`."""


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_what_is_acknowledged_stays_and_the_shard_heals(first: int) -> None:
    for seed in range(first, first + BATCH):
        run(seed, terse(seed) if seed % 2 else None)


@pytest.mark.parametrize("first", range(0, HANDOVER_SEEDS, BATCH))
def test_whoever_hands_over_under_faults_loses_nothing(first: int) -> None:
    ended: list[str] = []
    for seed in range(first, first + BATCH):
        ended += run(seed, with_handovers(seed)).handed
    assert ended.count("won") > 3
    assert "given up" in ended, "some successors do not get there in time"


def test_a_read_shows_everything_that_was_answered_before_it_was_asked() -> None:
    shown = 0
    for seed in range(BATCH):
        shown += run(seed, with_reads(seed)).shown
    assert shown > 10 * BATCH


def test_copies_that_lack_what_was_cut_are_filled_and_nothing_is_lost() -> None:
    filled = 0
    for seed in range(BATCH):
        filled += sum("is filled" in one for one in run(seed, with_cuts(seed)).trace)
    assert filled > 5


def test_the_number_of_copies_changes_under_faults_and_nothing_is_lost() -> None:
    changed, empty, adopted = 0, 0, 0
    for seed in range(RESIZE_SEEDS):
        cluster = run(seed, with_resizes(seed))
        changed += cluster.sizes.changed
        adopted += cluster.sizes.alone > 0
        empty += sum("an empty disk" in one for one in cluster.trace)
    assert changed > RESIZE_SEEDS
    assert adopted > 2, "some begin with a log that was never replicated"
    assert empty > 3, "copies that come back find the disk that they had, or an empty one"


def test_a_record_that_goes_back_behind_a_change_of_the_number_loses_nothing() -> None:
    back, changed = 0, 0
    for seed in range(RESIZE_SEEDS):
        cluster = run(seed, with_sizes_back(seed))
        back += cluster.rolled_back
        changed += cluster.sizes.changed
    assert back > RESIZE_SEEDS // 2
    assert changed > RESIZE_SEEDS


@pytest.mark.parametrize("seed", [18, 390])
def test_planners_of_several_replicas_let_one_of_them_recover_the_record(seed: int) -> None:
    run(seed, as_it_runs(seed))


@pytest.mark.parametrize("seed", KEPT_BACK, ids=str)
def test_a_seed_of_those_that_once_went_wrong_goes_well(seed: int) -> None:
    run(seed, with_sizes_back(seed))


def test_every_replica_plans_and_one_leads_at_a_time() -> None:
    planned, jumps = 0, 0
    for seed in range(BATCH):
        trace = run(seed, as_it_runs(seed)).trace
        planned += sum(one.split()[1:3] in [[str(BESIDE + n), "swaps"] for n in range(3)]
                       for one in trace)  # fmt: skip
        jumps += sum("clock jump" in one for one in trace)
    assert planned > BATCH
    assert jumps > BATCH // 2


def test_a_handover_without_faults_is_won_and_nobody_waits_for_long() -> None:
    cluster = run(7, Chaos(until_s=1.5, handovers=3.0))
    assert cluster.handed
    assert set(cluster.handed) == {"won"}
    assert len(cluster.checker.begun) > 1
    assert len(cluster.checker.answered) == sum(client.count for client in cluster.clients) > 10


@pytest.mark.parametrize("seed", KEPT, ids=str)
def test_a_seed_that_once_went_wrong_goes_well(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("shape", sorted(set(SHAPES)), ids=str)
def test_without_faults_every_command_is_answered_once(shape: tuple[int, int]) -> None:
    replicas, min_isr = shape
    cluster = run(7, Chaos(replicas=replicas, min_isr=min_isr, until_s=1.0))
    answered = cluster.checker.answered
    assert len(answered) == sum(client.count for client in cluster.clients) > 10
    assert sorted(done.offset for done in answered.values()) == list(range(1, len(answered) + 1))
    assert list(cluster.checker.begun) == [1]


def test_a_seed_gives_the_same_run_again() -> None:
    seed = next(one for one in range(100) if len(drawn(one).faults) > 4)
    first, second = run(seed), run(seed)
    assert first.trace == second.trace
    assert first.checker.chains == second.checker.chains
    assert first.checker.chains != run(seed, PLAIN).checker.chains


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.clause for one in MUTANTS])
def test_a_clause_that_is_switched_off_is_missed(mutant: Mutant) -> None:
    assert found(mutant, mutant.seed), "another seed may show it: make sim ARGS=--mutants"
