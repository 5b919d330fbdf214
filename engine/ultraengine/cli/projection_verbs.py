"""`ultra projection …`: what a database holds, and what its worker is asked to do."""

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ultraengine.cli import projection_ddl
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import Progress, plural, print_json, print_table, say
from ultraengine.cli.projecting import (
    TARGET_HELP,
    add_declarations,
    add_engine,
    carry_out,
    open_feed,
    read_limits,
    read_targets,
    read_world,
)
from ultraengine.model.ids import Offset, ShardId
from ultraengine.projection.target import (
    Checkpoint,
    ProjectionSet,
    Request,
    SetState,
    Target,
)
from ultraengine.projection.verifying.driver import Verdict, Verifier, VerifyFailed
from ultraengine.starting.log_lines import configure_logging
from ultraengine_adapters.local.clock import SystemClock

LAG_WAIT_S: Final = 5.0
_FAR: Final = Offset(1 << 62)


class SetStatus(msgspec.Struct, frozen=True):
    """One set as `ultra projection status` shows it."""

    projection: str
    version: int
    build: int
    state: SetState
    paused: bool
    parked: Any
    changed_at: str
    offsets: dict[ShardId, int]
    written_up_to: str | None
    """Stamped time of the newest group in the tables."""
    lag_commands: int | None
    """None without ``--engine``."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The verbs below ``projection``."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> Any:
        child = verbs.add_parser(name, help=summary, description=summary)
        child.add_argument(
            "projection", nargs="?", help="name of one projection (all that the target has)"
        )
        child.add_argument("--target", required=True, metavar="URL", help=TARGET_HELP)
        child.add_argument("-o", "--output", choices=("text", "json"), default="text")
        child.set_defaults(action=action)
        return child

    child = verb(
        "status", "Say which sets there are, how far they are, what stands still.", _status
    )
    add_engine(child, required=False)
    verb(
        "rebuild", "Build a new set from the log while the old one serves.", _asks(Request.REBUILD)
    )
    child = verb("pause", "Let the worker stop writing.", _pause)
    child.add_argument("--build", action="store_true", help="only what is being built")
    verb("resume", "Let it go on, also with what it was parked at.", _asks(Request.RESUME))
    child = verb("verify", "Build the tables a second time and compare all of them.", _verify)
    add_engine(child, required=True)
    add_declarations(child)
    ddl = "Print tables and views as SQL, for any database; nothing is run."
    child = verbs.add_parser("ddl", help=ddl, description=ddl)
    projection_ddl.configure(child)
    child.set_defaults(action=projection_ddl.run)
    parser.epilog = (
        "rebuild, pause and resume are left in the database for its worker, which obeys within a "
        "second;\nwithout a worker they wait for one."
    )


def run(options: argparse.Namespace) -> int:
    """Carry out the verb."""
    # For people, on stderr: a program reads what is on stdout.
    configure_logging(dev=True)
    return int(options.action(options))


def _target(options: argparse.Namespace) -> Target:
    (target,) = read_targets([options.target])
    return target


def _chosen(
    sets: list[ProjectionSet] | tuple[ProjectionSet, ...], options: argparse.Namespace
) -> list[ProjectionSet]:
    """The sets of the projections that were asked for.  Raises `CommandFailed`."""
    found = [of for of in sets if options.projection in (None, of.projection)]
    if not found:
        what = options.projection or "any projection"
        raise CommandFailed(
            f"the database holds no set of {what}",
            advice="A worker makes them: 'ultra project --target URL'.",
        )
    return found


# --- status ---------------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    target = _target(options)

    async def look() -> list[SetStatus]:
        ends = {} if options.engine is None else await _ends(options)
        await target.open()
        try:
            sets = _chosen(tuple(await target.sets()), options)
            return [_view(of, await target.positions(of), ends) for of in sets]
        finally:
            await target.close()

    found = carry_out(look)
    if options.output == "json":
        print_json({"target": target.dialect, "sets": found})
    else:
        rows = [["projection", "version", "build", "state", "offsets", "written up to", "behind"]]
        rows += [_row(one) for one in found]
        print_table(rows, right=frozenset({1, 2, 6}))
        for one in found:
            if one.parked is not None:
                where = f"offset {one.parked.offset} of shard {one.parked.shard}"
                say(f"{one.projection} build {one.build} is parked at {where}: {one.parked.reason}")
    return Exit.FINDINGS if any(one.parked is not None for one in found) else Exit.OK


async def _ends(options: argparse.Namespace) -> dict[ShardId, int]:
    """Where each shard's feed ends now."""
    feed = open_feed(options)
    ends: dict[ShardId, int] = {}
    try:
        for shard in await feed.shards():
            # An offset that nobody has reached is waited for: the first page only says the end.
            async with contextlib.aclosing(feed.pages(shard, _FAR)) as pages:
                async with asyncio.timeout(LAG_WAIT_S):
                    page = await anext(pages)
                ends[shard] = page.end
    finally:
        await feed.close()
    return ends


def _view(
    of: ProjectionSet, positions: Mapping[ShardId, Checkpoint], ends: Mapping[ShardId, int]
) -> SetStatus:
    offsets = {shard: int(at.offset) for shard, at in sorted(positions.items())}
    times = [at.time for at in positions.values()]
    behind = sum(max(0, end - offsets.get(shard, 0)) for shard, end in ends.items())
    return SetStatus(
        of.projection, of.version, of.build, of.state, of.paused, of.parked, _time(of.changed_at),
        offsets, _time(max(times)) if times else None, behind if ends else None,
    )  # fmt: skip


def _time(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1e6, UTC).isoformat(timespec="seconds")


def _row(one: SetStatus) -> list[str]:
    marks = [
        str(one.state),
        *(["paused"] if one.paused else []),
        *(["PARKED"] if one.parked else []),
    ]
    offsets = " ".join(f"{shard}:{offset}" for shard, offset in one.offsets.items()) or "-"
    behind = "-" if one.lag_commands is None else f"{one.lag_commands:,}"
    return [
        one.projection, str(one.version), str(one.build), ", ".join(marks), offsets,
        one.written_up_to or "-", behind,
    ]  # fmt: skip


# --- requests -------------------------------------------------------------------------------------


def _asks(request: Request) -> Callable[[argparse.Namespace], int]:
    return lambda options: _ask(options, request)


def _pause(options: argparse.Namespace) -> int:
    return _ask(options, Request.PAUSE_BUILD if options.build else Request.PAUSE)


def _ask(options: argparse.Namespace, request: Request) -> int:
    target = _target(options)

    async def leave() -> list[str]:
        await target.open()
        try:
            sets = _chosen(tuple(await target.sets()), options)
            names = sorted({of.projection for of in sets})
            for name in names:
                await target.ask(name, request, SystemClock().now())
            return names
        finally:
            await target.close()

    names = carry_out(leave)
    if options.output == "json":
        print_json({"asked": str(request), "projections": names})
    else:
        say(f"asked: {request} {', '.join(names)}; see 'ultra projection status'")
    return Exit.OK


# --- verify ---------------------------------------------------------------------------------------


def _verify(options: argparse.Namespace) -> int:
    world, limits, target = read_world(options), read_limits(options), _target(options)
    wanted = [one for one in world.declared if options.projection in (None, one.projection.name)]
    if not wanted:
        raise CommandFailed(f"no domain declares the projection {options.projection}")

    async def compare() -> list[Verdict]:
        feed = open_feed(options)
        await target.open()
        verdicts = []
        try:
            for one in wanted:
                title = f"verify {one.projection.name}"
                with Progress(title, quiet=options.output == "json") as progress:

                    def report(done: int, total: int, to: Progress = progress) -> None:
                        to.update(done, total, plural(done, "command"))

                    verifier = Verifier(
                        target, feed, one, world.decoder(),
                        clock=SystemClock(), limits=limits,
                        hooks=world.extensions.projection_hooks, report=report,
                    )  # fmt: skip
                    verdicts.append(await verifier.run())
        finally:
            await target.close()
            await feed.close()
        return verdicts

    try:
        found = carry_out(compare)
    except VerifyFailed as error:
        raise CommandFailed(str(error), code=Exit.FINDINGS) from error
    if options.output == "json":
        print_json([{**msgspec.to_builtins(verdict), "same": verdict.is_same} for verdict in found])
    else:
        for verdict in found:
            _print_verdict(verdict)
    return Exit.OK if all(verdict.is_same for verdict in found) else Exit.FINDINGS


def _print_verdict(verdict: Verdict) -> None:
    commands = plural(verdict.commands, "command")
    print(f"{verdict.projection} version {verdict.version} build {verdict.build}, {commands}")
    rows = [["table", "rows", "checksum", ""]]
    for one in verdict.tables:
        how = "same" if one.is_same else f"DIFFERS: the log says {one.expected.rows:,} rows"
        rows.append([one.table, f"{one.serving.rows:,}", one.serving.digest[:16], how])
    print_table(rows, right=frozenset({1}))
