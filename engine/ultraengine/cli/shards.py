"""`ultra shards`: move slots between running shards, one by one, while they serve."""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop

from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import print_json, print_table, say
from ultraengine.config import ConfigErrors
from ultraengine.front.settings import PLACE, AddressRefused, address_of
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving.record import State
from ultraengine.rebalancing.balance import Move, Progress, moves
from ultraengine.rebalancing.driver import MapFile, MoveFailed, Mover, Shards
from ultraengine.router.driver import Links
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine.starting.driver import read_map, read_secret
from ultraengine.starting.log_lines import configure_logging

PARALLEL_MAX: Final = 64
SAY_EVERY_S: Final = 1.0
"""Between two lines of progress."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    verbs = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    status = verbs.add_parser("status", help="who has how many slots, and which moves are open")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    status.set_defaults(what=_status, shards=None)
    rebalance = verbs.add_parser(
        "rebalance",
        help="move slots until so many shards share them evenly; those above are left empty",
    )
    rebalance.add_argument("--shards", type=int, required=True, metavar="N")
    _add_parallel(rebalance)
    rebalance.set_defaults(what=_rebalance)
    move = verbs.add_parser("move", help="move slots to one shard")
    move.add_argument("slots", metavar="SLOT", nargs="+", type=int)
    move.add_argument("--to", type=int, required=True, metavar="SHARD")
    _add_parallel(move)
    move.set_defaults(what=_move, shards=None)
    abort = verbs.add_parser(
        "abort", help="take back the moves that are open; those past their cutover are ended"
    )
    abort.set_defaults(what=_abort, shards=None, parallel=1)
    for verb in (status, rebalance, move, abort):
        _add_places(verb)
    parser.epilog = (
        "It may be interrupted, or killed, at any time, and run again: the shards keep what is\n"
        "logged of each move, and the command keeps nothing.  Shards that are new are started\n"
        "first; shards that are to go are ended when 'status' shows no slot of them."
    )


def _add_parallel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="slots at a time (%(default)s)"
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("shards")
    for name, variable, what in (
        ("--map", "ULTRA_MAP", "file with the shard map, which is swapped"),
        ("--hop-key", "ULTRA_HOP_KEY", "file with the secret of gateways and shards"),
        ("--shard-address", "ULTRA_SHARD_ADDRESS", f"http://HOST:PORT with {PLACE} in it"),
    ):
        default = os.environ.get(variable)
        group.add_argument(
            name, default=default, required=default is None, help=f"{what} (${variable})"
        )


def run(options: argparse.Namespace) -> int:
    """Do it until it is done, or until a signal."""
    configure_logging(dev=False)
    parallel = getattr(options, "parallel", 1)
    if not 1 <= parallel <= PARALLEL_MAX:
        raise CommandFailed(f"--parallel is 1 to {PARALLEL_MAX}")
    try:
        return int(uvloop.run(_run(options)))
    except* MoveFailed as failed:
        raise CommandFailed(str(failed.exceptions[0]), code=Exit.FINDINGS) from None
    except* (EngineError, MapRefused, OSError) as failed:
        raise CommandFailed(str(failed.exceptions[0]), code=Exit.UNREACHABLE) from None


async def _run(options: argparse.Namespace) -> int:
    path = Path(options.map)
    try:
        shard_map = read_map(path)
        secret = read_secret(Path(options.hop_key))
        count = _shard_count(options, shard_map)
        addresses = {
            ShardId(shard): address_of(options.shard_address, ShardId(shard))
            for shard in range(count)
        }
    except (ConfigErrors, AddressRefused, ValueError, OSError) as error:
        raise CommandFailed(str(error)) from error
    links = Links(addresses, shard_map)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        mover = Mover(Shards(links, secret), MapFile(path))
        return int(await options.what(options, mover, path, ended))
    finally:
        await links.close()


def _shard_count(options: argparse.Namespace, shard_map: ShardMap) -> int:
    """How many shards there may be to ask.  Raises ValueError."""
    wanted = 1 if options.shards is None else options.shards
    if not 1 <= wanted <= SLOT_COUNT:
        raise ValueError(f"--shards is 1 to {SLOT_COUNT}")
    return max(max(shard_map.shards) + 1, wanted, 1 + getattr(options, "to", 0))


async def _status(
    options: argparse.Namespace, mover: Mover, path: Path, _ended: asyncio.Event
) -> int:
    shard_map, logged = read_map(path), await mover.logged()
    at_work = {State.EXPORTING, State.SEALED, State.STAGED}
    shards = [
        {
            "shard": shard,
            "slots": sum(end - start for start, end in shard_map.slots_of(shard)),
            "open_moves": [slot for slot, one in sorted(records.items()) if one.state in at_work],
        }
        for shard, records in logged.items()
    ]
    if options.output == "json":
        print_json({"map_version": shard_map.version, "shards": shards})
    else:
        rows = [["shard", "slots", "open moves"]]
        rows += [[str(one["shard"]), str(one["slots"]), str(one["open_moves"])] for one in shards]
        print_table(rows, right=frozenset({0, 1}))
    return Exit.OK


async def _rebalance(
    options: argparse.Namespace, mover: Mover, path: Path, ended: asyncio.Event
) -> int:
    done = await mover.rebalance(options.shards, _teller(), parallel=options.parallel, ended=ended)
    left = len(moves(read_map(path), options.shards))
    return _end(done, left)


async def _move(
    options: argparse.Namespace, mover: Mover, _path: Path, ended: asyncio.Event
) -> int:
    if any(not 0 <= slot < SLOT_COUNT for slot in options.slots) or options.to < 0:
        raise CommandFailed(f"slots are 0 to {SLOT_COUNT - 1}")
    work = [Move(slot, ShardId(options.to)) for slot in options.slots]
    done = await mover.carry_out(work, _teller(), parallel=options.parallel, ended=ended)
    return _end(done, done.left)


async def _abort(
    _options: argparse.Namespace, mover: Mover, path: Path, ended: asyncio.Event
) -> int:
    count = max(read_map(path).shards) + 1
    work = await mover.begun(count, back=True)
    done = await mover.carry_out(work, _teller(), ended=ended)
    return _end(done, done.left)


def _end(done: Progress, left: int) -> int:
    say(f"{done.moved} slots settled in {done.elapsed_s:.1f} s, {left} left")
    return Exit.OK if not left else Exit.FINDINGS


def _teller() -> Callable[[Progress], None]:
    """Says how far it is, once a second."""
    next_s = time.monotonic() + SAY_EVERY_S

    def tell(progress: Progress) -> None:
        nonlocal next_s
        now = time.monotonic()
        if now >= next_s:
            next_s = now + SAY_EVERY_S
            eta_s = progress.eta_s or 0.0
            say(f"{progress.moved} slots moved, {progress.left} left, about {eta_s:.0f} s")

    return tell
