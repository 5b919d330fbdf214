"""The state of one shard, grouped by slot: domain states and versions of aggregates.

A slot can be dumped, loaded and dropped on its own, so that it can move to another shard
(requirement 002 D-T.12).  Versions count the accepted commands of (tenant, key).
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ultraengine.execution.carried import Lineage
from ultraengine.model.ids import Offset

CHUNK_ENTRIES: Final = 8_192
"""Versions per chunk of a dump: at most about 2.2 MB with the longest names."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_VERSIONS: Final = msgspec.msgpack.Decoder(list[tuple[str, str, int]])


class SlotImage:
    """All that one slot holds."""

    __slots__ = ("asleep", "changed", "due", "lineage", "states", "versions", "versions_changed")

    def __init__(self, domain_count: int) -> None:
        self.states: list[Any] = [None] * domain_count
        """By domain index; None until the domain was used in this slot."""
        self.versions: dict[tuple[str, str], int] = {}
        self.versions_changed: set[tuple[str, str]] = set()
        self.due: list[int | None] = [None] * domain_count
        """By domain index: the timer that the shard's heap knows of."""
        self.changed = False
        """Whether anything was touched since ``mark``."""
        self.lineage: Lineage | None = None
        """What the slot has brought along; None where it never moved."""
        self.asleep = False
        """Whether its timers stand still: the slot is a copy, or is handed over."""

    def accept(self, tenant: str, key: str, version: int) -> None:
        """Set the version of an aggregate after an accepted command."""
        name = (tenant, key)
        self.versions[name] = version
        self.versions_changed.add(name)

    def placed(self, offset: Offset) -> Offset:
        """The position that domains keep of what this shard does at an offset."""
        lineage = self.lineage
        return offset if lineage is None else Offset(offset + lineage.base)

    def dump_versions(self, *, full: bool) -> Iterator[bytes]:
        """Chunks of ``[tenant, key, version]``, sorted; only changed ones unless `full`."""
        names = sorted(self.versions if full else self.versions_changed)
        for start in range(0, len(names), CHUNK_ENTRIES):
            part = names[start : start + CHUNK_ENTRIES]
            yield _ENCODER.encode([(*name, self.versions[name]) for name in part])

    def load_versions(self, chunk: bytes) -> None:
        """Take one chunk of ``dump_versions``."""
        for tenant, key, version in _VERSIONS.decode(chunk):
            self.versions[tenant, key] = version
