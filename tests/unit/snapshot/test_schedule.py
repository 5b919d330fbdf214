"""When the next snapshot is due, and of which kind."""

from typing import Any

import pytest

from ultraengine.snapshot.manifest import SnapshotEntry
from ultraengine.snapshot.schedule import (
    AnyOf,
    EveryCommands,
    EveryInterval,
    OnDemand,
    Progress,
    ReplayBound,
    SnapshotPolicy,
    choose_kind,
    default_policy,
)


def progress(**known: Any) -> Progress:
    return Progress(**{"commands": 0, "elapsed_s": 0.0, **known})


def sized(size: int) -> SnapshotEntry:
    return SnapshotEntry(
        file="",
        number=1,
        bytes=size,
        shard=0,
        epoch=1,
        offset_end=0,
        sequence_end=0,
        chain="",
        content_hash="",
        state_hash=None,
        base=None,
        created=0,
        sections=1,
        codec=1,
        encrypted=False,
    )


def test_by_count() -> None:
    policy = EveryCommands(100)
    assert policy.due(progress(commands=99)) is None
    assert policy.due(progress(commands=100)) == "100 commands since the last one"


def test_by_time_and_only_when_something_came() -> None:
    policy = EveryInterval(60.0)
    assert policy.due(progress(elapsed_s=59.9, commands=5)) is None
    assert policy.due(progress(elapsed_s=60.0, commands=1)) == "60 s since the last one"
    assert policy.due(progress(elapsed_s=1e9, commands=0)) is None


def test_adaptive_bounds_the_replay_by_what_was_measured() -> None:
    policy = ReplayBound(replay_s_max=10.0, assumed_per_s=1000.0)
    assert policy.due(progress(commands=9_999)) is None
    assert policy.due(progress(commands=10_000)) == "replay would take 10.0 s"
    assert policy.due(progress(commands=10_000, replay_per_s=5_000.0)) is None
    assert policy.due(progress(commands=50_000, replay_per_s=5_000.0)) is not None


def test_adaptive_counts_in_what_arrives_while_the_snapshot_is_taken() -> None:
    policy = ReplayBound(replay_s_max=10.0, assumed_per_s=1000.0)
    known = {"commands": 8_000, "elapsed_s": 100.0, "last_duration_s": 2.0}
    assert policy.due(progress(**known, arrivals_per_s=999.0)) is None
    assert policy.due(progress(**known, arrivals_per_s=1000.0)) is not None


def test_adaptive_does_not_spend_all_its_time_on_snapshots() -> None:
    policy = ReplayBound(replay_s_max=1.0, assumed_per_s=1000.0, busy_share_max=0.25)
    known = {"commands": 1_000_000, "last_duration_s": 10.0}
    assert policy.due(progress(**known, elapsed_s=39.0)) is None
    assert policy.due(progress(**known, elapsed_s=40.0)) is not None


def test_adaptive_takes_none_of_nothing() -> None:
    assert ReplayBound(replay_s_max=0.0).due(progress(commands=0)) is None


def test_on_demand() -> None:
    assert OnDemand().due(progress(requested=True)) == "requested"
    assert OnDemand().due(progress()) is None


def test_the_first_policy_that_says_so_counts_and_one_runs_at_a_time() -> None:
    policy = AnyOf((EveryCommands(5), EveryInterval(1.0)))
    assert policy.due(progress(commands=5, elapsed_s=9.0)) == "5 commands since the last one"
    assert policy.due(progress(commands=4, elapsed_s=9.0)) == "9 s since the last one"
    assert policy.due(progress(commands=4)) is None
    assert policy.due(progress(commands=5, running=True)) is None


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(1, 10.0), (2, 20.0), (4, 80.0), (8, 600.0), (5000, 600.0)]
)
def test_failures_are_answered_with_patience(failures: int, pause_s: float) -> None:
    policy = AnyOf((OnDemand(), EveryCommands(1)))
    known = {"commands": 5, "failures": failures}
    assert policy.due(progress(**known, since_failure_s=pause_s - 0.1)) is None
    assert policy.due(progress(**known, since_failure_s=pause_s)) is not None
    assert policy.due(progress(**known, requested=True)) == "requested"


def test_the_default_takes_whichever_comes_first() -> None:
    policy: SnapshotPolicy = default_policy()
    assert policy.due(progress(commands=1_000_000)) is not None
    assert policy.due(progress(commands=10, replay_per_s=1.0, elapsed_s=1.0)) is not None
    assert policy.due(progress(commands=1, elapsed_s=3600.0, replay_per_s=1e9)) is not None
    assert policy.due(progress(commands=999_999, elapsed_s=3599.0, replay_per_s=1e9)) is None


def test_the_kind_follows_length_and_weight_of_the_chain() -> None:
    def kind(*sizes: int) -> str:
        chain = [sized(size) for size in sizes]
        return choose_kind(chain, increments_max=3, bytes_share_max=0.5)

    assert kind() == "full"
    assert kind(100) == "increment"
    assert kind(100, 10, 10) == "increment"
    assert kind(100, 10, 10, 10) == "full"
    assert kind(100, 25, 25) == "increment"
    assert kind(100, 25, 26) == "full"
