"""How verbs reach an engine: its address, its key, and what its errors mean for a script."""

import argparse
import os
from pathlib import Path
from typing import Final

from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.client import (
    DEFAULT_URL,
    Client,
    ClientError,
    OutcomeUnknown,
    Refused,
    Rejected,
    SyncClient,
    Unreachable,
)

URL_VARIABLE: Final = "ULTRAENGINE_URL"
KEY_VARIABLE: Final = "ULTRAENGINE_API_KEY"

_CODES: Final[tuple[tuple[type[ClientError], Exit], ...]] = (
    (Rejected, Exit.REJECTED),
    (Refused, Exit.REFUSED),
    (Unreachable, Exit.UNREACHABLE),
    (OutcomeUnknown, Exit.UNKNOWN),
)


def add_connection(parser: argparse.ArgumentParser, *, timeout_s: float = 30.0) -> None:
    """Arguments of every verb that talks to an engine."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"address of the engine (${URL_VARIABLE}, {DEFAULT_URL})",
    )
    group.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the API key (else ${KEY_VARIABLE}, else none)",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=timeout_s,
        metavar="SECONDS",
        help="how long one request may take with all its attempts (%(default)s)",
    )


def api_key(options: argparse.Namespace) -> str | None:
    """The key to use.  Raises `CommandFailed` when its file cannot be read."""
    if options.api_key_file is None:
        return os.environ.get(KEY_VARIABLE)
    try:
        text: str = options.api_key_file.read_text()
    except OSError as error:
        raise CommandFailed(f"cannot read the API key: {error}") from error
    return text.strip()


def connect(options: argparse.Namespace) -> SyncClient:
    """A client as the arguments ask."""
    _check_url(options.url)
    return SyncClient(options.url, api_key=api_key(options), deadline_s=options.timeout)


def connect_async(options: argparse.Namespace) -> Client:
    """An asynchronous client as the arguments ask."""
    _check_url(options.url)
    return Client(options.url, api_key=api_key(options), deadline_s=options.timeout)


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"{url!r} is no address", advice=f"As in {DEFAULT_URL}.")


def failure(error: ClientError, options: argparse.Namespace) -> CommandFailed:
    """What an error of the client means for the person at the terminal."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FINDINGS)
    if code is Exit.UNREACHABLE:
        return CommandFailed(
            f"no engine answers at {options.url}: {error.detail}",
            advice="Start one with 'ultra dev', or name another with --url.",
            code=code,
        )
    return CommandFailed(str(error), advice=error.advice, code=code)
