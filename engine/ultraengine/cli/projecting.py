"""What the verbs of projections share: targets, the engine, what is declared, limits."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import msgspec

from ultraengine.cli.connection import KEY_VARIABLE, URL_VARIABLE
from ultraengine.cli.domains import add_domains, import_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.client import DEFAULT_URL
from ultraengine.config import ConfigErrors
from ultraengine.extensions import Extensions
from ultraengine.feed.remote.driver import HttpFeed
from ultraengine.log.serializer import serializers
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.limits import DEFAULT_PROJECTION_LIMITS, ProjectionLimits
from ultraengine.projection.decode import Decoder
from ultraengine.projection.projector import Declared, declared
from ultraengine.projection.target import RowRefused, Target, TargetUnavailable
from ultraengine.projection.targets import named, open_target
from ultraengine.starting.loading import load_extensions

T = TypeVar("T")
TARGET_HELP: Final = (
    "a database: sqlite:///PATH, postgresql://…, mysql://…, lines:///DIRECTORY; NAME=URL names it, "
    "@FILE reads the URL from a file"
)


class World(msgspec.Struct, frozen=True):
    """What is projected, and by whose rules."""

    declared: tuple[Declared, ...]
    extensions: Extensions
    domains: tuple[Any, ...]

    def decoder(self) -> Decoder:
        """A new one: each worker has its own."""
        names = {one.domain for one in self.declared}
        return Decoder(
            [domain for domain in self.domains if domain.name in names],
            serializers(self.extensions.serializers),
        )


def add_engine(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Where the feed is."""
    default = os.environ.get(URL_VARIABLE, DEFAULT_URL) if required else None
    parser.add_argument(
        "--engine", default=default, metavar="URL",
        help=f"address of the engine, or of each copy of a shard, with commas (${URL_VARIABLE}, "
        f"{DEFAULT_URL})" if required
        else "address of the engine, or of each copy, to say how far behind the tables are",
    )  # fmt: skip
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE",
        help=f"file with an API key of the scope feed (else ${KEY_VARIABLE}, else none)",
    )  # fmt: skip


def add_declarations(parser: argparse.ArgumentParser) -> None:
    """What is projected."""
    add_domains(parser)
    parser.add_argument(
        "--extensions",
        metavar="PACKAGE.MODULE:ATTRIBUTE",
        help="hooks and codecs of your own (docs/extending.md)",
    )
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE",
        help="a limit of the worker, repeatable (docs/projections.md)",
    )  # fmt: skip


def read_world(options: argparse.Namespace) -> World:
    """Import what is declared.  Raises `CommandFailed`."""
    domains = import_domains(options.domain)
    try:
        found = declared(domains)
        extensions = load_extensions(options.extensions)
    except (InvariantBroken, ConfigErrors) as error:
        raise CommandFailed(str(error)) from error
    if not found:
        raise CommandFailed(
            "these domains declare no projections",
            advice="See docs/projections.md for how a domain declares its tables.",
        )
    return World(found, extensions, tuple(domains))


def read_limits(options: argparse.Namespace) -> ProjectionLimits:
    """The limits with what was given.  Raises `CommandFailed` naming each mistake."""
    hints, values, mistakes = get_type_hints(ProjectionLimits), {}, []
    for text in options.limit:
        name, _, value = text.partition("=")
        kind = hints.get(name)
        if kind is None:
            mistakes.append(f"{name}: no such limit")
            continue
        try:
            values[name] = kind(value)
            if not values[name] >= 0:
                raise ValueError
        except ValueError:
            mistakes.append(f"{text}: not {kind.__name__} of 0 or more")
    if mistakes:
        raise CommandFailed("\n  ".join(["wrong limits:", *mistakes]))
    return msgspec.structs.replace(DEFAULT_PROJECTION_LIMITS, **values)


def read_targets(texts: list[str]) -> list[Target]:
    """The targets of the command line, not connected.  Raises `CommandFailed`."""
    try:
        urls = named([read_url(text) for text in texts])
        return [open_target(url, name) for name, url in urls.items()]
    except EngineError as error:
        raise CommandFailed(error.detail) from error


def read_url(text: str) -> str:
    """``@FILE`` and ``NAME=@FILE`` with what the file says: a password is not for arguments."""
    head, separator, path = text.partition("@")
    if not separator or (head and not head.endswith("=")):
        return text
    try:
        return head + Path(path).read_text().strip()
    except OSError as error:
        raise CommandFailed(f"cannot read the target's URL: {error}") from error


def open_feed(options: argparse.Namespace) -> HttpFeed:
    """The feed of the engine, from a copy that follows where there is one.

    Raises `CommandFailed`.
    """
    addresses = [one.strip() for one in options.engine.split(",")]
    for one in addresses:
        if not one.startswith(("http://", "https://")):
            raise CommandFailed(f"{one!r} is no address", advice=f"As in {DEFAULT_URL}.")
    key = os.environ.get(KEY_VARIABLE)
    if options.key_file is not None:
        try:
            key = options.key_file.read_text().strip()
        except OSError as error:
            raise CommandFailed(f"cannot read the API key: {error}") from error
    return HttpFeed(addresses, key, read="follower", attempts_max=3)


def carry_out(work: Callable[[], Awaitable[T]]) -> T:
    """Run a verb; what a target or a feed raises becomes a message and an exit code."""

    async def run() -> T:
        return await work()

    try:
        return asyncio.run(run())
    except TargetUnavailable as error:
        raise CommandFailed(
            f"the database cannot be reached: {error}", code=Exit.UNREACHABLE
        ) from error
    except RowRefused as error:
        raise CommandFailed(f"the database refuses a row: {error}", code=Exit.FINDINGS) from error
    except EngineError as error:
        code = Exit.UNREACHABLE if error.problem.retryable else Exit.REFUSED
        raise CommandFailed(f"{error.code}: {error.detail}", code=code) from error
