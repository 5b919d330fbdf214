"""`ultra repl`: type commands and reads; Tab completes, answers are readable JSON.

ledger.open_accounts book-1 {"accounts": [{"id": "alice", "asset": "USD/2"}]}
ledger/book-1/accounts/alice
outcome book-1 COMMAND-ID
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from ultraengine.cli.connection import add_connection, connect
from ultraengine.cli.exits import Exit
from ultraengine.cli.get import read
from ultraengine.cli.output import print_json, say
from ultraengine.client import ClientError, SyncClient
from ultraengine.model.ids import split_type

HISTORY_LINES_MAX: Final = 2_000
HELP: Final = """\
  TYPE KEY JSON        send a command     ledger.open_accounts book-1 {"accounts": [...]}
  DOMAIN/KEY/...       read               ledger/book-1/accounts/alice
  outcome KEY ID       what became of a command
  types                command types of this engine
  paths                reads of this engine
  help, quit"""


class Line(NamedTuple):
    """One line, understood."""

    kind: str
    """``send``, ``get``, ``outcome``, ``types``, ``paths``, ``help``, ``quit`` or ``nothing``."""
    words: tuple[Any, ...] = ()


class NotUnderstood(ValueError):
    """A line that is none of what the help says."""


def parse_line(text: str) -> Line:
    """Understand one line.  Raises `NotUnderstood`."""
    text = text.strip()
    first, _, rest = text.partition(" ")
    rest = rest.strip()
    match first:
        case "" | "#":
            return Line("nothing")
        case "help" | "?" | "types" | "paths":
            return Line("help" if first == "?" else first)
        case "quit" | "exit":
            return Line("quit")
        case "outcome":
            words = rest.split()
            if len(words) != 2:
                raise NotUnderstood("as in: outcome book-1 COMMAND-ID")
            return Line("outcome", tuple(words))
    if "/" in first or (not rest and first == "limits"):
        return Line("get", (text,))
    if split_type(first) is not None:
        key, _, data = rest.partition(" ")
        if not data.strip():
            raise NotUnderstood(f'as in: {first} KEY {{"...": ...}}')
        try:
            return Line("send", (first, key, msgspec.json.decode(data)))
        except msgspec.DecodeError as error:
            raise NotUnderstood(f"the data is not JSON: {error}") from error
    raise NotUnderstood(f"{first!r} is neither a command type nor a path; 'help' shows examples")


class Vocabulary:
    """What Tab may complete: the engine's types and paths, and what was typed before."""

    def __init__(self, types: Iterable[str], paths: Iterable[str]) -> None:
        self.types = sorted(types)
        self.paths = sorted(paths)
        self._keys: dict[str, None] = {}

    def learn(self, line: Line) -> None:
        """Remember the keys that a line names."""
        if line.kind == "send":
            self._keys[line.words[1]] = None
        elif line.kind == "get":
            parts = line.words[0].split("?")[0].strip("/").split("/")
            if len(parts) > 1:
                self._keys[parts[1]] = None

    def candidates(self, before: str, word: str) -> list[str]:
        """Completions of `word`, with the text `before` it on the line."""
        first = before.split()
        if not first:
            words = [*self.types, *self._reads(), "outcome", "types", "paths", "help", "quit"]
        elif len(first) == 1 and (split_type(first[0]) or first[0] == "outcome"):
            words = list(self._keys)
        else:
            words = []
        return [candidate for candidate in words if candidate.startswith(word)]

    def _reads(self) -> list[str]:
        keys = list(self._keys) or ["{key}"]
        return [path.replace("{key}", key) for path in self.paths for key in keys]


def vocabulary_of(document: Any) -> Vocabulary:
    """Types and paths from an OpenAPI document; empty where it has another shape."""
    text = msgspec.json.encode(document).decode()
    types = set(re.findall(r'"(?:const|enum)":\s*\[?\s*"([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)"', text))
    paths = document.get("paths", {}) if isinstance(document, dict) else {}
    reads = {
        path.removeprefix("/v1/").replace("{book}", "{key}")
        for path, methods in paths.items()
        if path.startswith("/v1/") and isinstance(methods, dict) and "get" in methods
    }
    return Vocabulary(types, reads)


class Session:
    """Carries out lines and prints what comes of them."""

    def __init__(self, client: SyncClient, vocabulary: Vocabulary, errors: TextIO) -> None:
        self._client = client
        self._vocabulary = vocabulary
        self._errors = errors

    def carry_out(self, text: str) -> bool:
        """One line; False when it ends the session."""
        try:
            line = parse_line(text)
            self._vocabulary.learn(line)
            return self._do(line)
        except NotUnderstood as error:
            self._complain(str(error))
        except ClientError as error:
            if error.reply is not None:
                print_json(error.reply)
            self._complain(str(error), error.advice)
        except ValueError as error:
            self._complain(str(error))
        return True

    def _do(self, line: Line) -> bool:
        match line.kind:
            case "quit":
                return False
            case "help":
                print(HELP)
            case "types":
                print("\n".join(self._vocabulary.types))
            case "paths":
                print("\n".join(self._vocabulary.paths))
            case "get":
                print_json(read(self._client, line.words[0]).value)
            case "outcome":
                key, name = line.words
                print_json(self._client.outcome(id=name, key=key))
            case "send":
                kind, key, data = line.words
                print_json(self._client.send(kind, key=key, data=data))
        return True

    def _complain(self, text: str, advice: str = "") -> None:
        print(f"! {text}", file=self._errors)
        if advice:
            print(f"  {advice}", file=self._errors)


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.epilog = "In it:\n" + HELP
    add_connection(parser, timeout_s=10.0)


def run(options: argparse.Namespace) -> int:
    """Read lines until ``quit`` or the end of the input."""
    with connect(options) as client:
        vocabulary = _learn_vocabulary(client)
        session = Session(client, vocabulary, sys.stderr)
        if sys.stdin.isatty():
            say(f"{options.url}  ('help' shows what to type, Tab completes, Ctrl-D leaves)")
            with _line_editor(vocabulary):
                _converse(session, lambda: input("> "))
        else:
            lines = iter(sys.stdin)
            _converse(session, lambda: _next_line(lines))
    return Exit.OK


def _next_line(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise EOFError
    return line


def _converse(session: Session, ask: Callable[[], str]) -> None:
    while True:
        try:
            if not session.carry_out(ask()):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            print()


def _learn_vocabulary(client: SyncClient) -> Vocabulary:
    try:
        return vocabulary_of(client.get("/openapi.json", deadline_s=3.0).value)
    except ClientError as error:
        say(f"! {error}")
        return Vocabulary((), ())


@contextlib.contextmanager
def _line_editor(vocabulary: Vocabulary) -> Iterator[None]:
    """Line editing, completion and a history file, where the platform has readline."""
    try:
        import readline  # noqa: PLC0415  (absent on some platforms)
    except ImportError:
        yield
        return

    def complete(word: str, state: int) -> str | None:
        found = vocabulary.candidates(readline.get_line_buffer()[: readline.get_begidx()], word)
        return found[state] if state < len(found) else None

    history = Path.home() / ".ultra_history"
    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(HISTORY_LINES_MAX)
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(history)
