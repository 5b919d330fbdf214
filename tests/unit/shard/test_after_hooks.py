"""After hooks are told of what a shard executes, and never of what is only decided again."""

from tests.unit.shard.test_start_from_snapshot import added

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.pipeline import Hooks, Verdict
from ultraengine.model.command import Command
from ultraengine.model.outcome import Status
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SimShard


class Witness:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, command: Command, verdict: Verdict) -> None:
        assert verdict.status == Status.ACCEPTED
        self.seen.append(command.id)


def start(disk: SimDisk, witness: Witness) -> SimShard:
    return SimShard(disk, SimClock(), [DOMAIN], hooks=Hooks(after=(witness,)))


def test_a_command_is_seen_once_whatever_is_replayed_decided_again_or_validated() -> None:
    disk, witness = SimDisk(), Witness()
    shard = start(disk, witness)
    for name in ("a", "b", "c"):
        shard.send(added(shard, name))
    assert witness.seen == ["a", "b", "c"]
    # The outcome of the last one is not in the log yet: the next start decides it again.
    assert [one.command.id for one in shard.machine.unrecorded.values()] == ["c"]
    disk = disk.kill()
    shard = start(disk, witness)
    assert witness.seen == ["a", "b", "c"]
    shard.send(added(shard, "d"))
    assert shard.validate().compared > 4
    shard.snapshot("full")
    (again,) = shard.send(added(shard, "a"))
    assert again.duplicate
    assert witness.seen == ["a", "b", "c", "d"]
