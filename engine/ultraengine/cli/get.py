"""`ultra get`: read from the engine, as `GET /v1/…` does."""

import argparse
from urllib.parse import parse_qsl

import msgspec

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_json
from ultraengine.client import Answer, ClientError, SyncClient


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "path", help="below /v1/, with parameters: 'ledger/book-1/accounts/alice?at_offset=7'"
    )
    parser.add_argument(
        "--position", action="store_true", help="print version and position beside the value"
    )
    parser.epilog = (
        "Examples: ultra get limits; ultra get ledger/book-1/accounts;\n"
        "          ultra get 'ledger/book-1/accounts/alice/statement?from=2026-01-01T00:00:00Z'"
    )
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    """Read and print JSON."""
    with connect(options) as client:
        try:
            answer = read(client, options.path)
        except ClientError as error:
            raise failure(error, options) from error
    print_json(msgspec.structs.asdict(answer) if options.position else answer.value)
    return Exit.OK


def read(client: SyncClient, path: str) -> Answer:
    """Read a path as people write it: with a query, with or without ``/v1/`` in front."""
    below, _, query = path.partition("?")
    return client.get(below.removeprefix("/v1/"), dict(parse_qsl(query, keep_blank_values=True)))
