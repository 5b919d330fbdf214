"""A restore ends where it was told, in the state of then, and is nobody else's directory."""

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.backup.world import ENGINE, SECRETS, World, added, names, restored, state_at

from ultraengine.backup.choosing import Target
from ultraengine.backup.errors import BackupDamaged, BackupError, BackupRefused
from ultraengine.backup.manifest import Backup, decode_backup, encode_backup
from ultraengine.backup.taking import Source, archive_sealed, identity_of
from ultraengine.domains.counter import DOMAIN
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.reply import Reply
from ultraengine.ports import ObjectStore
from ultraengine.shard.ownership import Ownership, read_ownership, write_ownership
from ultraengine.shard.promise import read_promise
from ultraengine.snapshot.schedule import SnapshotKind
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_objects import SimObjectStore
from ultraengine.testing.sim_shard import SimShard

GROUPS = (1, 3, 7, 2, 16, 5)


def same(reply: Reply, told: Reply) -> bool:
    """Whether a retry was answered as at first."""
    first = msgspec.structs.replace(told, duplicate=True)
    return msgspec.json.encode(reply) == msgspec.json.encode(first)


@pytest.fixture
def lived() -> World:
    """Groups, a snapshot between them, a kill, and a backup while outcomes are not recorded."""
    world = World()
    for commands in GROUPS[:3]:
        world.send(commands)
    world.shard.snapshot("full")
    for commands in GROUPS[3:5]:
        world.send(commands)
    world.die()
    world.send(GROUPS[5])
    world.back_up()
    return world


def test_everything_is_restored_what_had_no_outcome_too(lived: World) -> None:
    disk, found = restored(lived.store)
    assert (found.offset_end, found.cut) == (lived.end, False)
    assert found.recorded_end < found.offset_end
    again = SimShard(disk, SimClock(), [DOMAIN])
    for number, told in lived.told.items():
        (reply,) = again.send(added(again, number))
        assert same(reply, told)
    assert again.validate().equal


def test_a_restore_at_any_offset_is_the_state_of_the_records_below_it(lived: World) -> None:
    lived.shard.rest()
    lived.back_up()
    end = lived.end
    first = min(
        decode_backup(lived.store.get(name), name).at.offset_end
        for name in names(lived.store, "backups")
    )
    assert first > 0
    for offset in range(first, end + 1):
        disk, found = restored(lived.store, Target(offset=offset))
        assert found.offset_end == found.recorded_end == offset
        assert state_at(disk) == state_at(lived.disk, offset)


@pytest.mark.parametrize("back", [1, 3, 9])
def test_ids_below_the_position_are_answered_as_before_and_others_are_new(
    lived: World, back: int
) -> None:
    lived.shard.rest()
    lived.back_up()
    offset = lived.end - back
    disk, _ = restored(lived.store, Target(offset=offset))
    again = SimShard(disk, SimClock(), [DOMAIN])
    for number, told in lived.told.items():
        (reply,) = again.send(added(again, number))
        assert told.offset is not None
        if told.offset < offset:
            assert same(reply, told)
        else:
            assert not reply.duplicate
            assert reply.offset is not None
            assert reply.offset >= offset
    assert again.validate().equal


def test_a_moment_leaves_out_what_was_stamped_later(lived: World) -> None:
    lived.shard.rest()
    taken = lived.back_up()
    tried = 0
    for moment in sorted(set(lived.stamps.values())):
        if moment < taken.backup.at.time:
            continue
        disk, found = restored(lived.store, Target(time=moment))
        within = [
            reply.offset
            for number, reply in lived.told.items()
            if lived.stamps[number] <= moment and reply.offset is not None
        ]
        # What the next life said of itself has the time of its start.
        assert found.offset_end in {max(within) + 1, max(within) + 2}
        assert found.time <= moment
        assert state_at(disk) == state_at(lived.disk, found.offset_end)
        tried += 1
    assert tried >= 3


def test_a_moment_after_the_last_record_is_everything(lived: World) -> None:
    _, found = restored(lived.store, Target(time=1 << 62))
    assert found.offset_end == lived.end


def test_the_new_directory_has_identities_of_its_own(lived: World) -> None:
    write_ownership(
        lived.disk,
        Ownership(
            engine_uid=b"o" * 16, shard=ShardId(0), shard_count=1, map_version=1, slots=((0, 9),)
        ),
    )
    lived.back_up()
    disk, found = restored(lived.store)
    old, new = identity_of(lived.disk), identity_of(disk)
    assert new.cluster_uid.hex() == found.cluster_uid != old.cluster_uid.hex()
    assert new.disk_uuid != old.disk_uuid
    owned = read_ownership(disk)
    assert owned is not None
    assert (owned.engine_uid, owned.slots) == (ENGINE, ((0, 9),))
    assert read_promise(disk) == Epoch(2)
    # So neither does the place of the old one take its backups.
    SimShard(disk, SimClock(), [DOMAIN]).stop()
    world = World(lived.store, seed=1)
    with pytest.raises(BackupRefused, match="the place belongs to cluster"):
        world.back_up()


def test_complete_segments_reach_further_than_the_last_backup(lived: World) -> None:
    while len(lived.disk.list("log")) < 7:
        lived.send(16)
    sent = archive_sealed(Source(disk=lived.disk, secrets=SECRETS), lived.store)
    assert sent
    assert archive_sealed(Source(disk=lived.disk, secrets=SECRETS), lived.store) == []
    backup = decode_backup(
        lived.store.get(names(lived.store, "backups")[-1]), names(lived.store, "backups")[-1]
    )
    disk, found = restored(lived.store)
    assert backup.end.offset_end < found.offset_end <= lived.end
    lived.shard.rest()
    assert state_at(disk) == state_at(lived.disk, found.recorded_end)


def test_a_position_before_the_oldest_backup_or_behind_everything_is_refused(lived: World) -> None:
    with pytest.raises(BackupRefused, match="the oldest backup is of offset"):
        restored(lived.store, Target(offset=1))
    with pytest.raises(BackupRefused, match="the oldest backup is of offset"):
        restored(lived.store, Target(time=1))
    with pytest.raises(BackupRefused, match=f"holds offsets below {lived.end}, and not 9999"):
        restored(lived.store, Target(offset=9999))
    with pytest.raises(BackupRefused, match="holds no backup"):
        restored(SimObjectStore())


@pytest.mark.parametrize("kind", ["full", "increment"])
def test_a_backup_sends_again_only_what_is_new(lived: World, kind: SnapshotKind) -> None:
    lived.shard.rest()
    lived.back_up()
    again = lived.back_up()
    assert (again.sent_objects, again.kept_objects) == (0, len(again.backup.objects))
    lived.send(3)
    lived.shard.snapshot(kind)
    more = lived.back_up()
    # The history and the last segment have grown, and there is a snapshot more.
    assert more.sent_objects == 3
    disk, found = restored(lived.store, Target(offset=more.backup.at.offset_end))
    assert found.state_hash == more.backup.state_hash == state_at(disk)[1]


def test_a_replay_from_the_backup_before_comes_to_the_state_of_the_next(lived: World) -> None:
    lived.shard.rest()
    before = lived.back_up().backup
    lived.send(4)
    lived.shard.snapshot("full")
    after = lived.back_up().backup
    disk, found = restored(lived.store, Target(offset=after.at.offset_end), base=before)
    assert found.snapshot_offset == before.at.offset_end < found.offset_end
    assert state_at(disk)[1] == after.state_hash


# --- what is not as it was stored --------------------------------------------------------------


def kinds(store: ObjectStore) -> dict[str, str]:
    """One object of each kind."""
    return {name.split("/")[1]: name for name in store.list("0/") if "OWNER" not in name}


@pytest.mark.parametrize("kind", ["segments", "tails", "snapshots", "history", "backups"])
def test_a_flipped_bit_anywhere_is_found_with_the_name_of_the_object(
    lived: World, kind: str
) -> None:
    name = kinds(lived.store)[kind]
    good = lived.store.get(name)
    for at in sorted({0, 9, len(good) // 2, len(good) - 1}):
        bad = bytearray(good)
        bad[at] ^= 0x10
        lived.store.put(name, bytes(bad))
        with pytest.raises(BackupDamaged) as found:
            restored(lived.store)
        assert name in str(found.value)


@pytest.mark.parametrize("kind", ["segments", "tails", "snapshots", "history"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda store, name: store.delete(name), "it is missing from the store"),
        (lambda store, name: store.put(name, store.get(name)[:-8]), "bytes instead of"),
    ],
)
def test_an_object_that_is_missing_or_short_is_found(
    lived: World, kind: str, change: Callable[[ObjectStore, str], None], said: str
) -> None:
    name = kinds(lived.store)[kind]
    change(lived.store, name)
    with pytest.raises(BackupError, match=r"missing|instead of|holds offsets") as found:
        restored(lived.store, Target(offset=lived.end))
    assert (said in str(found.value) and name in str(found.value)) or kind in {"segments", "tails"}


def test_a_segment_of_another_history_does_not_continue_this_one(lived: World) -> None:
    other = World()
    other.send(2)
    other.back_up()
    (tail,) = names(other.store, "tails")
    ours = list(names(lived.store, "tails"))
    lived.store.delete(ours[-1])
    # Under a name that leads on from the last complete segment.
    lived.store.put(ours[-1], other.store.get(tail))
    with pytest.raises(BackupDamaged, match="instead of"):
        restored(lived.store)


def test_a_copy_that_breaks_off_at_any_object_leaves_what_was_restorable(lived: World) -> None:
    lived.shard.rest()
    lived.send(4)
    lived.shard.snapshot("full")
    _, before = restored(lived.store)

    class Breaking(SimObjectStore):
        left = 0

        def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
            if not self.left:
                raise OSError("the store is away")
            self.left -= 1
            super().put(name, data, if_absent=if_absent)

    whole = 0
    for left in range(20):
        store = Breaking()
        for name in lived.store.list(""):
            SimObjectStore.put(store, name, lived.store.get(name))
        store.left = left
        lived_store, lived.store = lived.store, store
        try:
            lived.back_up()
            whole += 1
        except OSError:
            _, found = restored(store, Target(offset=before.offset_end))
            assert found.offset_end == before.offset_end
        finally:
            lived.store = lived_store
    assert 0 < whole < 20


def test_a_manifest_of_a_later_release_is_refused_and_not_guessed(lived: World) -> None:
    (name,) = names(lived.store, "backups")
    backup = decode_backup(lived.store.get(name), name)
    lived.store.put(name, encode_backup(msgspec.structs.replace(backup, format=2)))
    with pytest.raises(BackupRefused, match="a newer release wrote it"):
        restored(lived.store)


def test_a_manifest_whose_log_ends_before_its_snapshot_is_damaged(lived: World) -> None:
    (name,) = names(lived.store, "backups")
    backup = decode_backup(lived.store.get(name), name)
    short: Backup = msgspec.structs.replace(backup, log=backup.log[:0])
    lived.store.put(name, encode_backup(short))
    for other in (*names(lived.store, "segments"), *names(lived.store, "tails")):
        lived.store.delete(other)
    with pytest.raises(BackupRefused, match="holds no log"):
        restored(lived.store)
