"""`ultra send`: one command from the command line, or a file with one command on each line."""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import plural, print_json, print_json_line, say
from ultraengine.client import ClientError, NewCommand, Reply, SyncClient

CHUNK_COMMANDS: Final = 1_000
"""Commands of a file that are on their way at once."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("type", nargs="?", help="domain.verb_noun, as ledger.create_transfers")
    parser.add_argument("--key", help="partition key (for the ledger: the book)")
    parser.add_argument(
        "--data", metavar="JSON", help="the command's data; @FILE reads a file, - standard input"
    )
    parser.add_argument("--id", help="idempotency key; one is made when it is absent")
    parser.add_argument(
        "--expected-version", type=int, metavar="N", help="only if the key has this version"
    )
    parser.add_argument("--correlation-id", metavar="TEXT", help="carried through log and events")
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="send a JSON command from each line (type, key, data, id, …); - is standard input",
    )
    parser.epilog = "Prints the reply as JSON; with --file one reply on each line, in order."
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    """Send, print, and end with the code of what was answered."""
    if options.file is not None:
        if options.type or options.data is not None:
            raise CommandFailed("--file holds whole commands: leave out the type and --data")
        return _send_file(options)
    if not options.type or options.key is None or options.data is None:
        raise CommandFailed(
            "a command has a type, a --key and --data",
            advice="""As in: ultra send ledger.open_accounts --key book-1 """
            """--data '{"accounts": [{"id": "alice", "asset": "USD/2"}]}'""",
        )
    return _send_one(options, _read_data(options.data))


def _read_data(text: str) -> Any:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        return msgspec.json.decode(text)
    except (OSError, msgspec.DecodeError) as error:
        raise CommandFailed(f"--data is not JSON: {error}") from error


def _send_one(options: argparse.Namespace, data: Any) -> int:
    with connect(options) as client:
        try:
            reply = client.send(
                options.type,
                key=options.key,
                data=data,
                id=options.id,
                expected_version=options.expected_version,
                correlation_id=options.correlation_id,
            )
        except ClientError as error:
            if error.reply is not None:
                print_json(error.reply)
            raise failure(error, options) from error
        except ValueError as error:
            raise CommandFailed(str(error)) from error
    print_json(reply)
    return Exit.OK


def _send_file(options: argparse.Namespace) -> int:
    counts = {"accepted": 0, "rejected": 0, "refused": 0}
    with connect(options) as client:
        commands = _read_commands(options.file)
        while chunk := list(islice(commands, CHUNK_COMMANDS)):
            for reply in _send_chunk(client, chunk, options):
                counts[reply.outcome] += 1
                print_json_line(reply)
    total = sum(counts.values())
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    say(f"{plural(total, 'command')}: {said or 'none'}")
    if counts["refused"]:
        return Exit.REFUSED
    return Exit.REJECTED if counts["rejected"] else Exit.OK


def _send_chunk(
    client: SyncClient, chunk: list[NewCommand], options: argparse.Namespace
) -> list[Reply]:
    try:
        return client.send_all(chunk)
    except ClientError as error:
        raise failure(error, options) from error
    except ValueError as error:
        raise CommandFailed(str(error)) from error


def _read_commands(path: Path) -> Iterator[NewCommand]:
    decode = msgspec.json.Decoder(NewCommand).decode
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    yield decode(line)
                except msgspec.MsgspecError as error:
                    raise CommandFailed(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error}") from error
