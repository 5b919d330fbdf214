"""From a decoder's message to an RFC 6901 pointer.

msgspec names the place of a validation error in its message, as ``... - at `$.a[3].b```;
the pointer ``/a/3/b`` is what problems carry.
"""

import re
from typing import Final

_PLACE: Final = re.compile(r" - at `\$?(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")


def split_place(message: str, *, under: str = "") -> tuple[str, str]:
    """(what was wrong, pointer) of a `msgspec.ValidationError` message.

    ``under`` is the pointer of the value that was decoded, put in front.
    """
    found = _PLACE.search(message)
    if found is None:
        return message, under
    steps = (step["name"] or step["index"] for step in _STEP.finditer(found["path"]))
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    return message[: found.start()], under + pointer
