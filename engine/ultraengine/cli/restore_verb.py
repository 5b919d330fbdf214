"""`ultra restore`: the directory of a new engine from a backup, at an offset or a moment."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from ultraengine.backup.choosing import Target
from ultraengine.backup.restoring import Restored
from ultraengine.cli.backup_verbs import STORE, shards_of, translated
from ultraengine.cli.domains import add_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import print_facts, print_json, say
from ultraengine.cli.replaying import Replayed
from ultraengine.cli.restoring import Restoring, noted, shard_place
from ultraengine.router.first_ownership import engine_uid_of
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine_adapters.object_stores import open_store


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--from", dest="store", required=True, help=STORE)
    parser.add_argument(
        "--data", type=Path, required=True, help="data directory of the new engine; made if absent"
    )
    parser.add_argument("--shard", type=int, help="one shard alone (all of the store)")
    point = parser.add_mutually_exclusive_group()
    point.add_argument("--offset", type=int, help="the commands below this offset; with one shard")
    point.add_argument(
        "--at",
        type=moment,
        metavar="TIME",
        help="what was stamped up to 2026-11-30T12:00:00Z",
    )
    parser.add_argument("--secrets", type=Path, help="directory with the keys (ULTRA_SECRETS)")
    parser.add_argument(
        "--engine-uid", metavar="NAME", help="engine that it will belong to (ULTRA_ENGINE_UID)"
    )
    parser.add_argument(
        "--first-start",
        type=Path,
        metavar="MAP",
        help="before the first start of a new engine's shard: nothing is done when its directory\n"
        "is there, or the engine of this map has been ready; slots must be those of the map",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="where it is written, as JSON; with one shard"
    )
    add_domains(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "What is made belongs to a new engine: it has an identity of its own, and a backup of it\n"
        "needs a place of its own. Nothing that is there is overwritten."
    )


def moment(text: str) -> int:
    """Microseconds since the Unix epoch.  Raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone: add Z for UTC")
    whole = found - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def run(options: argparse.Namespace) -> int:
    """Build and prove every shard, and only then give them their names."""
    if options.report is not None and options.shard is None:
        raise CommandFailed("--report is of one shard: name it with --shard")
    shard_map = None if options.first_start is None else _map_of(options)
    if shard_map is not None:
        done_before = _is_no_first_start(options, shard_map)
        if done_before is not None:
            say(f"ultra: nothing is restored: {done_before}")
            _report(options)
            return Exit.OK
    with translated():
        store = open_store(options.store, changes=False)
        shards = shards_of(store, options.shard)
        if options.offset is not None and len(shards) > 1:
            raise CommandFailed("--offset is of one shard: name it with --shard, or use --at")
        restoring = Restoring(
            store,
            options.data,
            options.secrets,
            options.domain,
            say,
            engine_uid=None if options.engine_uid is None else engine_uid_of(options.engine_uid),
        )
        target = Target(offset=options.offset, time=options.at)
        done: list[tuple[Restored, Replayed]] = []
        try:
            for shard in shards:
                restored = restoring.build(shard, target)
                reached = restoring.prove(restored)
                if shard_map is not None:
                    restoring.require_slots(shard, reached, shard_map)
                restoring.note(restored, reached)
                done.append((restored, reached))
        except BaseException:
            for restored, _ in done:
                restoring.discard(restored.shard)
            raise
        for restored, _ in done:
            restoring.publish(restored.shard)
    _report(options)
    if options.output == "json":
        print_json([{"restored": one, "replayed": reached} for one, reached in done])
        return Exit.OK
    for restored, reached in done:
        _tell(restored, reached, restoring.place(restored.shard))
    return Exit.OK


def _map_of(options: argparse.Namespace) -> ShardMap:
    if options.shard is None:
        raise CommandFailed("--first-start is of one shard: name it with --shard")
    try:
        return ShardMap.decode(options.first_start.read_bytes())
    except (OSError, MapRefused) as error:
        raise CommandFailed(f"--first-start: {error}") from error


def _report(options: argparse.Namespace) -> None:
    """Say what the directory was filled with, now or before."""
    if options.report is None:
        return
    filled = noted(shard_place(options.data, options.shard))
    if filled is not None:
        options.report.write_bytes(filled.encode())


def _is_no_first_start(options: argparse.Namespace, shard_map: ShardMap) -> str | None:
    """Why an empty directory is not to be filled now; None when it is.

    An engine that has been ready has told clients of commands that no backup needs to have: an
    empty volume in place of a lost one is refused by the start that follows, and filled by nobody.
    """
    place = shard_place(options.data, options.shard)
    if place.exists():
        return f"{place} is there"
    if shard_map.version > 1:
        return f"version {shard_map.version} of the map says that the engine has been ready"
    return None


def _tell(restored: Restored, reached: Replayed, place: Path) -> None:
    stamped = datetime.fromtimestamp(restored.time / 1e6, UTC).isoformat()
    print_facts(
        {
            "directory": place,
            "cluster": restored.cluster_uid,
            "from backup": restored.backup,
            "offsets below": restored.offset_end,
            "stamped up to": stamped,
            "replayed": f"{reached.replayed} commands from offset {reached.from_offset}",
            "state hash": reached.state_hash,
        }
    )
    if restored.recorded_end < restored.offset_end:
        say(
            f"ultra: commands from offset {restored.recorded_end} on have no outcome yet; the "
            "first start decides them"
        )
