"""`ultra key …`: the file of API keys, which a running engine reads again when it changes."""

import argparse
import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import print_json, print_table, say
from ultraengine.edge.auth import KeyEntry, KeyFileError, read_keys
from ultraengine.edge.server import KEY_FILE_BYTES_MAX
from ultraengine.gateway.key_edits import with_new_key, without_key
from ultraengine_adapters.local.random import SystemRandom

NEW_FILE_MODE: Final = 0o600
_DAYS: Final = re.compile(r"([1-9][0-9]{0,4})d")


def configure(parser: argparse.ArgumentParser) -> None:
    """The verbs below ``key``."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> Any:
        child = verbs.add_parser(name, help=summary, description=summary)
        child.add_argument(
            "--file",
            type=Path,
            required=True,
            help="file of keys, as given to 'ultra dev --auth' or ULTRA_API_KEYS",
        )
        child.add_argument("-o", "--output", choices=("text", "json"), default="text")
        child.set_defaults(action=action)
        return child

    child = verb("issue", "Make a key, add its hash to the file and show the key, once.", _issue)
    child.add_argument("--tenant", required=True, help="whose data the key opens")
    child.add_argument("--principal", required=True, help="who or what uses it, such as till-7")
    child.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        required=True,
        help="'ledger:read', 'ledger:write', '*:read', … or 'admin'; may be repeated",
    )
    child.add_argument(
        "--expires", type=_expiry, metavar="WHEN", help="'90d', or a time: 2027-01-01T00:00:00Z"
    )

    verb("list", "List the keys of the file; it knows no secret.", _list)

    child = verb("revoke", "Remove a key from the file.", _revoke)
    child.add_argument("prefix", help="the eight characters that name the key, as 'list' shows")


def run(options: argparse.Namespace) -> int:
    """Carry out the verb; a file that cannot be used is named with all its mistakes."""
    try:
        return int(options.action(options))
    except (KeyFileError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{options.file}: {error}", advice="Nothing was changed.") from error
    except OSError as error:
        raise CommandFailed(str(error)) from error


def _expiry(text: str) -> datetime:
    """A time from now on, in whole seconds, which is what the file keeps."""
    now = datetime.now(UTC).replace(microsecond=0)
    days = _DAYS.fullmatch(text)
    try:
        when = now + timedelta(days=int(days[1])) if days else datetime.fromisoformat(text)
        when = when.replace(microsecond=0)
        if when.tzinfo is None:
            raise argparse.ArgumentTypeError(f"{text} names no time zone: end it with Z for UTC")
        when = when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of days ('90d') nor a time ('2027-01-01T00:00:00Z')"
        ) from None
    if when <= now:
        raise argparse.ArgumentTypeError(f"{text} is past")
    return when


def _issue(options: argparse.Namespace) -> int:
    with _edited(options.file) as path:
        content = path.read_bytes() if path.exists() else b""
        key, entry, edited = with_new_key(
            content,
            SystemRandom(),
            tenant=options.tenant,
            principal=options.principal,
            scopes=list(dict.fromkeys(options.scopes)),
            expires=options.expires,
        )
        _replace(path, edited)
    if options.output == "json":
        print_json({"key": key, **_facts(entry)})
    else:
        print(key)
    say(f"The key {entry.prefix} of {entry.tenant}/{entry.principal} is in {options.file}.")
    say("Keep it now: only its hash is stored, and it is not shown again.")
    return Exit.OK


def _list(options: argparse.Namespace) -> int:
    facts = [_facts(entry) for entry in read_keys(options.file.read_bytes()).keys]
    if options.output == "json":
        print_json(facts)
        return Exit.OK
    columns = ("prefix", "tenant", "principal", "scopes", "expires", "state")
    rows = [list(columns)]
    rows += [[_cell(fact[column]) for column in columns] for fact in facts]
    print_table(rows)
    return Exit.OK


def _revoke(options: argparse.Namespace) -> int:
    with _edited(options.file) as path:
        entry, edited = without_key(path.read_bytes(), options.prefix)
        _replace(path, edited)
    if options.output == "json":
        print_json(_facts(entry))
    say(f"The key {entry.prefix} of {entry.tenant}/{entry.principal} is no longer in the file.")
    say("An engine that uses the file refuses it as soon as it has read the file again.")
    return Exit.OK


def _facts(entry: KeyEntry) -> dict[str, object]:
    expired = entry.expires is not None and entry.expires <= datetime.now(UTC)
    return {
        "prefix": entry.prefix,
        "tenant": entry.tenant,
        "principal": entry.principal,
        "scopes": entry.scopes,
        "expires": entry.expires,
        "state": "expired" if expired else "live",
    }


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "never" if value is None else str(value)


@contextlib.contextmanager
def _edited(file: Path) -> Iterator[Path]:
    """The file behind links, for one editor at a time: two would lose one's key."""
    path = file.resolve()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield path
        os.fsync(directory)
    finally:
        os.close(directory)


def _replace(path: Path, content: bytes) -> None:
    """The whole new file or the whole old one, with the old one's mode and owner."""
    if len(content) > KEY_FILE_BYTES_MAX:
        raise KeyFileError(f"the file would be larger than {KEY_FILE_BYTES_MAX} bytes")
    found = path.stat() if path.exists() else None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(content)
            written.flush()
            if found is not None:
                if (found.st_uid, found.st_gid) != (os.getuid(), os.getgid()):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
                os.fchmod(descriptor, found.st_mode & 0o7777)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
