"""A key file with one key more or one less, and everything else as a person wrote it.

The file is TOML that people comment and sort, so it is edited as text and never written anew
from its values.  Each edit is parsed again and compared with what was meant: a file in which
an edit of the text would mean something else is left to its author.
"""

import re
from datetime import datetime
from itertools import pairwise
from typing import Final

from ultraengine.edge.auth import (
    KeyEntry,
    KeyFileContent,
    KeyFileError,
    check_keys,
    entry_text,
    issue_key,
    read_keys,
)
from ultraengine.ports import Random

_HEADER: Final = re.compile(r"[ \t]*\[")
_KEY_HEADER: Final = re.compile(r"[ \t]*\[\[[ \t]*keys[ \t]*\]\]")


def with_new_key(
    content: bytes,
    random: Random,
    *,
    tenant: str,
    principal: str,
    scopes: list[str],
    expires: datetime | None = None,
) -> tuple[str, KeyEntry, bytes]:
    """A new key, its entry, and the file with the entry at its end.

    The file keeps whole seconds of `expires`; a fraction is cut off.
    Raises `KeyFileError` when the file cannot be read, when a name or scope is none, or when
    the principal has as many keys as it may.
    """
    before = read_keys(content)
    known = {entry.prefix for entry in before.keys}
    if expires is not None:
        expires = expires.replace(microsecond=0)
    while True:
        key, entry = issue_key(
            random, tenant=tenant, principal=principal, scopes=scopes, expires=expires
        )
        if entry.prefix not in known:
            break
    meant = KeyFileContent([*before.keys, entry], before.tenants)
    check_keys(meant)
    text = content.decode()
    if text and not text.endswith("\n"):
        text += "\n"
    gap = "\n" if text else ""
    edited = f"{text}{gap}{entry_text(entry)}".encode()
    _expect(edited, meant)
    return key, entry, edited


def without_key(content: bytes, prefix: str) -> tuple[KeyEntry, bytes]:
    """The entry of the key that `prefix` names, and the file without it.

    Comments and blank lines in front of what follows the entry stay: they are about that.
    Raises `KeyFileError` when there is no such key, or when the text cannot be edited.
    """
    before = read_keys(content)
    entry = next((entry for entry in before.keys if entry.prefix == prefix), None)
    if entry is None:
        raise KeyFileError(f"there is no key {prefix}")
    lines = content.decode().splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    named = re.compile(rf"""[ \t]*prefix[ \t]*=[ \t]*["']{re.escape(prefix)}["']""")
    for start, following in pairwise([*starts, len(lines)]):
        block = lines[start:following]
        if _KEY_HEADER.match(block[0]) and any(map(named.match, block)):
            end = following
            while _is_aside(lines[end - 1]):
                end -= 1
            edited = "".join(lines[:start] + lines[end:]).encode()
            rest = [other for other in before.keys if other.prefix != prefix]
            _expect(edited, KeyFileContent(rest, before.tenants))
            return entry, edited
    raise KeyFileError(
        f"the key {prefix} does not stand under [[keys]] of its own: edit it by hand"
    )


def _is_aside(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


def _expect(edited: bytes, meant: KeyFileContent) -> None:
    try:
        as_meant = read_keys(edited) == meant
    except KeyFileError:
        as_meant = False
    if not as_meant:
        raise KeyFileError("the file cannot be edited as text: edit it by hand")
