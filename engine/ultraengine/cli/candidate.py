"""`ultra candidate`: may this build take a running shard over?

It borrows the files of the shard from whoever leads it, decides the log again with the code and the
settings at hand, compares every outcome, and says so in a verdict and an exit code. Nothing of the
shard is changed, and its volume is not needed: a pod of the next image runs this before any pod of
the shard gets that image.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ultraengine.cli.connection import add_connection, api_key
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import print_json, say
from ultraengine.cli.replaying import decided_state, opened_shard
from ultraengine.config import Config, ConfigErrors
from ultraengine.edge.auth import FEED_SCOPE, KnownCaller
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.gateway.hop import hop_headers
from ultraengine.log.damage import LogError, LogRefused
from ultraengine.model.candidate import Verdict
from ultraengine.model.command import SYSTEM_TENANT
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.shard.formats import FORMATS
from ultraengine.shard.validation import DoesNotFit
from ultraengine.snapshot.errors import SnapshotError, SnapshotRefused
from ultraengine.starting.borrowing.driver import Borrowing, TimeIsUp
from ultraengine.starting.borrowing.parts import NotLent

WITHIN_S = 3_600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_connection(parser)
    parser.add_argument(
        "--within",
        type=float,
        default=WITHIN_S,
        metavar="SECONDS",
        help="how long all of it may take (%(default)s)",
    )
    parser.add_argument(
        "--verdict", type=Path, metavar="FILE", help="where the verdict is written too, as JSON"
    )
    parser.epilog = (
        "Settings, limits and domains are those of ULTRA_* (docs/operations.md), as the shard\n"
        "would be started with them; ULTRA_DATA is a directory for the borrowed files, in which\n"
        "nothing of the shard is yet; ULTRA_HOP_KEY is for a shard behind gateways.\n"
        "Exit code 81: this build must not take over, and the verdict names the first offset;\n"
        "82: nothing is known."
    )


def run(options: argparse.Namespace) -> int:
    """Borrow, decide, say."""
    deadline_s = time.monotonic() + options.within
    verdict = _judged(options, deadline_s)
    if options.verdict is not None:
        options.verdict.write_bytes(verdict.encode())
    print_json(verdict)
    if verdict.detail:
        say(f"ultra: {verdict.detail}")
    return Exit(verdict.exit_code)


def _judged(options: argparse.Namespace, deadline_s: float) -> Verdict:
    number = int(os.environ.get("ULTRA_SHARD", "0") or "0")
    try:
        config = Config.from_env(os.environ)
        number = config.shard
    except ConfigErrors as error:
        detail = f"this build does not start with these settings: {error}"
        return Verdict(verdict="refused", shard=number, detail=detail)
    place = config.data / f"shard-{config.shard:04d}"
    if place.exists():
        raise CommandFailed(
            f"{place} is there already", advice="Name an empty directory with ULTRA_DATA."
        )
    borrowing = Borrowing(options.url, _headers(options, config), place, deadline_s=deadline_s)
    try:
        asyncio.run(borrowing.run())
    except (TimeIsUp, NotLent, OSError) as error:
        return Verdict(verdict="unproved", shard=number, detail=str(error))
    made = _decided(config, place, _until(deadline_s))
    return msgspec.structs.replace(made, may_return=borrowing.formats == FORMATS)


def _headers(options: argparse.Namespace, config: Config) -> dict[str, str]:
    if config.hop_key is not None:
        try:
            key = config.hop_key.read_text().strip()
        except OSError as error:
            raise CommandFailed(f"the hop key: {error}") from error
        return dict(
            hop_headers(key, KnownCaller(SYSTEM_TENANT, "candidate", frozenset({FEED_SCOPE})))
        )
    given = api_key(options)
    return {} if given is None else {"Authorization": f"Bearer {given}"}


def _until(deadline_s: float) -> Callable[[], None]:
    def between() -> None:
        if time.monotonic() > deadline_s:
            raise TimeIsUp("the log could not be decided again in time")

    return between


def _decided(config: Config, place: Path, between: Callable[[], None]) -> Verdict:
    shard = config.shard
    try:
        opened = opened_shard(place, domains=config.domains, secrets=config.secrets)
        report, state = decided_state(opened, between)
    except DoesNotFit as error:
        return Verdict(
            verdict="refused", shard=shard, offset=error.offset, command_type=error.command_type,
            detail=str(error),
        )  # fmt: skip
    except EvolveFailed as error:
        offset = int(str(error.facts.get("offset", 0)))
        return Verdict(verdict="refused", shard=shard, offset=offset, detail=str(error))
    except (LogRefused, SnapshotRefused, CommandFailed, ConfigErrors, InvariantBroken) as error:
        return Verdict(verdict="refused", shard=shard, detail=str(error))
    except (LogError, SnapshotError, EngineError, OSError, ValueError, TimeIsUp) as error:
        return Verdict(verdict="unproved", shard=shard, detail=f"{type(error).__name__}: {error}")
    found = Verdict(
        verdict="ok" if report.equal else "refused",
        shard=shard,
        offset=report.to_offset,
        from_offset=report.from_offset,
        compared=report.compared,
        state_hash=state,
        handlers=report.handlers,
    )
    if report.equal:
        return found
    return msgspec.structs.replace(
        found,
        command_type=report.command_type or "",
        recorded=report.recorded or "",
        decided=report.decided or "",
        detail=f"offset {report.to_offset} ({report.command_type}) is decided differently",
    )
