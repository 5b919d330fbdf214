"""The Secrets port on a directory of files, then on environment variables.

The file ``<directory>/<name>`` comes first: so Kubernetes and Docker hand secrets over,
and a rotated file is seen at the next call.  Otherwise the variable ``ULTRA_SECRET_<NAME>``
counts, with the name in upper case and each of ``.`` ``:`` ``-`` as ``_``.

A value that starts with ``base64:`` or ``hex:`` is decoded, white space around it ignored.
Any other file is taken byte by byte: a newline at its end belongs to it, because raw key
material may end in that byte.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ultraengine.model.ids import is_name

SECRET_BYTES_MAX: Final = 64 * 1024
"""A larger file is refused: it is not a key, and it would be read at every call."""

_PREFIX: Final = "ULTRA_SECRET_"
_AS_UNDERSCORE: Final = str.maketrans(".:-", "___")


class FileSecrets:
    """Key material by name; see the module for where it is looked for and how it is read."""

    def __init__(self, directory: Path | None, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment

    def get(self, name: str) -> bytes:
        """Current value.

        Raises KeyError with the name when there is none, ValueError when it is empty, too
        large or not decodable (the value is not in the message), OSError when the file
        cannot be read.
        """
        if not is_name(name) or name.startswith("."):
            raise KeyError(name)
        raw = self._from_file(name)
        if raw is None:
            text = self._environment.get(_PREFIX + name.upper().translate(_AS_UNDERSCORE))
            if text is None:
                raise KeyError(name)
            raw = text.encode("utf-8", "surrogateescape")
        value = _decoded(name, raw)
        if not value:
            raise ValueError(f"the secret {name!r} is empty")
        return value

    def _from_file(self, name: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            with (self._directory / name).open("rb") as file:
                raw = file.read(SECRET_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        if len(raw) > SECRET_BYTES_MAX:
            raise ValueError(f"the secret {name!r} is larger than {SECRET_BYTES_MAX} bytes")
        return raw


def _decoded(name: str, raw: bytes) -> bytes:
    stripped = raw.strip()
    try:
        if stripped.startswith(b"base64:"):
            return base64.b64decode(stripped.removeprefix(b"base64:"), validate=True)
        if stripped.startswith(b"hex:"):
            return binascii.unhexlify(stripped.removeprefix(b"hex:"))
    except binascii.Error:
        # `from None`: the cause would quote parts of the value in some Python versions.
        raise ValueError(f"the secret {name!r} is not what its prefix says") from None
    return raw
