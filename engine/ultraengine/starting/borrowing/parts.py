"""Which files a shard may give to a candidate: those of a shard's directory, and no other path."""

import re
from typing import Final

from ultraengine.replication.installing.offer import Part

_PATH: Final = re.compile(r"IDENTITY|(?:log|snapshots|history)/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


class NotLent(Exception):
    """What was asked does not give the files of a shard, and will not."""


def check_part(part: Part) -> str:
    """The path of a part.  Raises `NotLent` for one that no shard offers."""
    if _PATH.fullmatch(part.path) is None or part.size < 0:
        raise NotLent(f"{part.path[:200]!r} of {part.size} bytes is no file of a shard")
    return part.path
