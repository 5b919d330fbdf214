"""Schema migrations of sections (requirement 001 §2.1, §7.2).

Every section carries the schema of its owner.  A `Migration` is a pure function from a chunk
of one schema to chunks of another; `Migrations` chains them: forward when a snapshot is
loaded, backward when one is written for an older release.  An owner's ``load`` may accept
older schemas by itself (``oldest``); a registered migration comes first where there is one.

What cannot be read is refused with the names and numbers that disagree, never guessed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.image import Section

ChunkMigration = Callable[[bytes], Iterable[bytes]]


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one section name; ``to_schema`` below ``from_schema`` is a downgrade."""

    name: str
    from_schema: int
    to_schema: int
    migrate: ChunkMigration
    """Pure: a chunk of the old schema to chunks of the new one, in order, possibly none."""


class Readable(msgspec.Struct, frozen=True):
    """Which schemas of one section name this process loads."""

    newest: int
    """The schema it writes."""
    oldest: int = 1
    """The lowest one that its ``load`` takes without a migration."""


class Migrations:
    """What this process can read, by section name, and how older bytes get there.

    An empty `readable` checks nothing and changes nothing.
    """

    def __init__(
        self, readable: Mapping[str, Readable] | None = None, steps: Sequence[Migration] = ()
    ) -> None:
        self._readable: Final = dict(readable or {})
        self._steps: dict[tuple[str, int], list[Migration]] = {}
        for step in steps:
            if step.from_schema == step.to_schema:
                raise InvariantBroken("a migration changes the schema", step=step.name)
            taken = self._steps.setdefault((step.name, step.from_schema), [])
            if any(each.to_schema == step.to_schema for each in taken):
                raise InvariantBroken(
                    "there is one migration between two schemas",
                    name=step.name,
                    from_schema=step.from_schema,
                    to_schema=step.to_schema,
                )
            taken.append(step)

    @property
    def newest(self) -> Mapping[str, int]:
        """The schema that each section name is written in."""
        return {name: each.newest for name, each in sorted(self._readable.items())}

    def forward(self, section: Section) -> Iterator[Section]:
        """The section as this process loads it.  Raises `SnapshotRefused`."""
        if not self._readable:
            yield section
            return
        known = self._readable.get(section.name)
        if known is None:
            names = ", ".join(sorted(self._readable))
            raise SnapshotRefused(
                f"slot {section.slot} has a section {section.name!r} that this process has no"
                f" owner for; it has {names}"
            )
        if section.schema > known.newest:
            raise SnapshotRefused(
                f"section {section.name!r} of slot {section.slot} has schema {section.schema};"
                f" this release reads up to {known.newest}. Start the release that wrote it, or"
                f" let that release convert it to schema {known.newest}"
            )
        path = self._path(section.name, section.schema, known.newest)
        if path is None:
            if section.schema < known.oldest:
                raise SnapshotRefused(
                    f"section {section.name!r} of slot {section.slot} has schema"
                    f" {section.schema}; this release loads {known.oldest} to {known.newest} and"
                    f" has no migration from {section.schema}"
                )
            path = ()
        yield from _along(path, section)

    def backward(self, section: Section, targets: Mapping[str, int]) -> Iterator[Section]:
        """The section in the schema that `targets` names for it.  Raises `SnapshotRefused`."""
        target = targets.get(section.name, section.schema)
        path = self._path(section.name, section.schema, target)
        if path is None:
            raise SnapshotRefused(
                f"no migration of section {section.name!r} leads from schema {section.schema}"
                f" to {target}"
            )
        yield from _along(path, section)

    def _path(self, name: str, start: int, target: int) -> tuple[Migration, ...] | None:
        """The shortest chain of steps in one direction; None when there is none."""
        paths: dict[int, tuple[Migration, ...]] = {start: ()}
        reached = [start]
        for schema in reached:
            if schema == target:
                return paths[schema]
            for step in self._steps.get((name, schema), ()):
                # A step away from the target, or beyond it, would lose what it was taken for.
                between = schema < step.to_schema <= target or target <= step.to_schema < schema
                if between and step.to_schema not in paths:
                    paths[step.to_schema] = (*paths[schema], step)
                    reached.append(step.to_schema)
        return None


NO_MIGRATIONS: Final = Migrations()


def _along(path: Sequence[Migration], section: Section) -> Iterator[Section]:
    sections: Iterable[Section] = (section,)
    for step in path:
        sections = _apply(step, sections)
    yield from sections


def _apply(step: Migration, sections: Iterable[Section]) -> Iterator[Section]:
    for section in sections:
        for chunk in step.migrate(section.chunk):
            yield Section(section.slot, section.name, step.to_schema, chunk)
