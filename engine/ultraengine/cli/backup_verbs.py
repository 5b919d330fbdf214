"""`ultra backup …`: copies of shards in an object store, made, listed and proved."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ultraengine.backup import reading
from ultraengine.backup.choosing import Target
from ultraengine.backup.errors import BackupDamaged, BackupError
from ultraengine.backup.manifest import Backup
from ultraengine.backup.taking import Source, Taken, take
from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.directories import open_disk, open_secrets, secrets_directory
from ultraengine.cli.domains import add_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import plural, print_facts, print_json, print_table, say
from ultraengine.cli.restoring import Restoring
from ultraengine.client import ClientError
from ultraengine.log.damage import LogDamaged, LogError
from ultraengine.ports import ObjectStore, StoreDamaged
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotError
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.object_stores import open_store

STORE = "s3://bucket/prefix?endpoint=…, or a directory"


def configure(parser: argparse.ArgumentParser) -> None:
    """The verbs below ``backup``."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> Any:
        child = verbs.add_parser(name, help=summary, description=summary)
        child.set_defaults(action=action)
        return child

    child = verb("now", "Back up: a running engine, or the directory of a stopped one.", _now)
    child.add_argument("directory", type=Path, nargs="?", help="of a stopped engine or shard")
    child.add_argument("--to", help=f"with a directory: {STORE}")
    child.add_argument("--secrets", type=Path, help="with a directory: where its keys are")
    add_connection(child, timeout_s=3600.0)

    child = verb("list", "List the backups of a store.", _list)
    child.add_argument("--to", required=True, help=STORE)
    child.add_argument("--shard", type=int, help="of one shard")
    child.add_argument("-o", "--output", choices=("text", "json"), default="text")

    child = verb("verify", "Read every object of every backup and compare it.", _verify)
    child.add_argument("--to", required=True, help=STORE)
    child.add_argument("--shard", type=int, help="of one shard")
    child.add_argument(
        "--replay",
        action="store_true",
        help="a drill: restore each backup from the one before it, replay, compare the state",
    )
    child.add_argument("--secrets", type=Path, help="directory with the keys")
    add_domains(child)


def run(options: argparse.Namespace) -> int:
    """Carry out the verb."""
    with translated():
        return int(options.action(options))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Errors of stores and backups become messages and exit codes."""
    try:
        yield
    except (BackupDamaged, StoreDamaged, SnapshotDamaged, LogDamaged) as error:
        raise CommandFailed(str(error), code=Exit.DAMAGED) from error
    except BlockingIOError as error:
        raise CommandFailed(
            "a running process owns the directory",
            advice="Stop it first, or ask it: 'ultra backup now --url …'.",
            code=Exit.IN_USE,
        ) from error
    except (BackupError, LogError, SnapshotError, OSError, ValueError) as error:
        raise CommandFailed(str(error)) from error


def _now(options: argparse.Namespace) -> int:
    if options.directory is None:
        with connect(options) as client:
            try:
                print_json(client.operate("backup"))
            except ClientError as error:
                raise failure(error, options) from error
        return Exit.OK
    if options.to is None:
        raise CommandFailed("--to is needed with a directory")
    disk = open_disk(options.directory)
    store = open_store(options.to)
    lock = disk.lock("LOCK")
    try:
        source = Source(disk=disk, secrets=open_secrets(secrets_directory(options.secrets)))
        _tell(take(source, store, SystemClock().now()))
    finally:
        lock.release()
    return Exit.OK


def _tell(taken: Taken) -> None:
    print_facts(
        {
            "backup": taken.name,
            "offsets below": taken.backup.end.offset_end,
            "snapshot at": taken.backup.at.offset_end,
            "state hash": taken.backup.state_hash,
            "sent": f"{plural(taken.sent_objects, 'object')}, {taken.sent_bytes:,} bytes",
            "there already": plural(taken.kept_objects, "object"),
        }
    )


def shards_of(store: ObjectStore, shard: int | None) -> list[int]:
    """The shards that are meant.  Raises `CommandFailed` when the store has none of them."""
    found = reading.shards(store)
    if shard is not None:
        found = [one for one in found if one == shard]
    if not found:
        raise CommandFailed("the store holds no backup" + ("" if shard is None else " of it"))
    return found


def _backups(options: argparse.Namespace) -> Iterator[tuple[ObjectStore, int, list[Backup]]]:
    store = open_store(options.to, changes=False)
    for shard in shards_of(store, options.shard):
        yield store, shard, reading.backups(store, shard)


def _list(options: argparse.Namespace) -> int:
    found = [backup for _, _, backups in _backups(options) for backup in backups]
    if options.output == "json":
        print_json(found)
        return Exit.OK
    rows = [["shard", "taken", "snapshot at", "offsets below", "bytes", "name"]]
    rows += [
        [
            str(one.shard),
            datetime.fromtimestamp(one.created / 1e6, UTC).isoformat(timespec="seconds"),
            str(one.at.offset_end),
            str(one.end.offset_end),
            f"{sum(stored.bytes for stored in one.objects):,}",
            one.name,
        ]
        for one in found
    ]
    print_table(rows, right=frozenset({0, 2, 3, 4}))
    return Exit.OK


def _verify(options: argparse.Namespace) -> int:
    problems = 0
    for store, shard, backups in _backups(options):
        before: Backup | None = None
        for backup in backups:
            found = reading.check(store, backup)
            if not found and options.replay:
                found = _drill(options, store, shard, backup, before)
            for problem in found:
                print(f"{backup.name}: {problem}")
            if not found:
                print(f"{backup.name}: good" + (", its state too" if options.replay else ""))
                before = backup
            problems += len(found)
    return Exit.DAMAGED if problems else Exit.OK


def _drill(
    options: argparse.Namespace,
    store: ObjectStore,
    shard: int,
    backup: Backup,
    before: Backup | None,
) -> list[str]:
    """Restore a backup's position from the one before it, and compare the state."""
    with tempfile.TemporaryDirectory(prefix="ultra-drill-") as place:
        restoring = Restoring(store, Path(place), options.secrets, options.domain, say)
        target = Target(offset=backup.at.offset_end)
        try:
            # The log of one that begins later does not reach back.
            base = before if before is not None and before.end.offset_end else None
            restored = restoring.build(shard, target, base=base)
            reached = restoring.prove(restored)
        except (BackupDamaged, CommandFailed) as error:
            return [str(error)]
        if backup.state_hash not in {None, reached.state_hash}:
            problem = (
                f"replay from offset {reached.from_offset} to {reached.offset} comes to state "
                f"{reached.state_hash}, and the backup is of {backup.state_hash}"
            )
            return [problem]
    return []
