"""From rows to commands: which ids, which items together, in which order.

Rows are taken in windows of fixed length.  A window's prerequisites (accounts) are sent and
answered before its rows, so that no row can arrive before what it needs.  Windows, batches
and ids are functions of file and mapping alone: a second run makes the same commands with
the same ids, and the engine answers them as duplicates.

A command's id holds the first line it was made of and a digest of its content, so that a
changed mapping makes new commands instead of contradicting old ones.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from ultraengine.cli.importing.expressions import LINE, NULL, ROW, BadValue, Value
from ultraengine.cli.importing.mapping import CompiledTarget, Mapping
from ultraengine.cli.importing.table import BadRow, Row
from ultraengine.model.ids import is_name

WINDOW_ROWS: Final = 4_000
"""Rows that are sent before the next ones are made."""

Kind = Literal["bad", "skipped", "rejected"]


class SetAside(msgspec.Struct, frozen=True):
    """A row that was not booked, and why; one line of the report."""

    line: int
    kind: Kind
    reason: str
    row: str


class Part(msgspec.Struct, frozen=True):
    """One item of a command, or the whole of its data, with the row it was made of."""

    line: int
    raw: str
    value: Any


class Planned(msgspec.Struct, frozen=True):
    """A command to be sent."""

    id: str
    type: str
    key: str
    items: str
    """Member of the data that holds the items; empty: the one part is the data."""
    base: dict[str, Any]
    """Data without the items."""
    parts: tuple[Part, ...]

    @property
    def data(self) -> dict[str, Any]:
        """The command's data."""
        if not self.items:
            return self.base
        return {**self.base, self.items: [part.value for part in self.parts]}


class Window(msgspec.Struct, frozen=True):
    """What a run of rows comes to."""

    number: int
    rows: int
    """Rows read, whatever became of them."""
    last_line: int
    needs: tuple[Planned, ...]
    commands: tuple[Planned, ...]
    aside: tuple[SetAside, ...]


class _Group:
    """Items for one command that is still open."""

    def __init__(self, rank: int, target: CompiledTarget, key: str, base: dict[str, Any]) -> None:
        self.rank = rank
        self.target = target
        self.key = key
        self.base = base
        self.parts: list[Part] = []


class Planner:
    """Makes windows; holds what was seen before them."""

    def __init__(
        self, mapping: Mapping, *, attempt: int = 1, window_rows: int = WINDOW_ROWS
    ) -> None:
        """`attempt`: raise it to have rejected rows decided anew instead of remembered."""
        self._mapping = mapping
        self._attempt = attempt
        self._window_rows = window_rows
        self._made: set[tuple[int, str, str]] = set()
        """(target, key, value) of prerequisites that were made."""

    def windows(self, rows: Iterable[Row | BadRow]) -> Iterator[Window]:
        """All windows of a file, in order."""
        source, number = iter(rows), 0
        while window := list(islice(source, self._window_rows)):
            yield self._window(number, window, first_row=number * self._window_rows)
            number += 1

    def _window(self, number: int, rows: list[Row | BadRow], first_row: int) -> Window:
        needs, commands = _Collector(self), _Collector(self)
        aside: list[SetAside] = []
        for index, row in enumerate(rows):
            if isinstance(row, BadRow):
                aside.append(SetAside(row.line, "bad", row.reason, row.raw))
                continue
            try:
                skipped = self._place(row, first_row + index + 1, needs, commands)
            except BadValue as error:
                skipped = SetAside(row.line, "bad", str(error), row.raw)
            if skipped is not None:
                aside.append(skipped)
        return Window(
            number=number,
            rows=len(rows),
            last_line=rows[-1].line,
            needs=needs.planned(),
            commands=commands.planned(),
            aside=tuple(aside),
        )

    def _place(
        self, row: Row, number: int, needs: "_Collector", commands: "_Collector"
    ) -> SetAside | None:
        """Put one row where it belongs.  Raises `BadValue`, and then nothing was placed."""
        mapping = self._mapping
        values: dict[str, Value] = dict(zip(mapping.table.columns, row.fields, strict=True))
        values.update({LINE: row.line, ROW: number, NULL: None})
        rule = next((rule for rule in mapping.skip if rule.value.text(values) == rule.equals), None)
        wanted = [] if rule is not None and not rule.keep_needs else self._needs(row, values)
        if rule is None:
            made = _render(row, mapping.row, values)
            commands.add(0, mapping.row, *made)
        for index, once, key, base, part in wanted:
            self._made.add((index, key, once))
            needs.add(index, mapping.needs[index], key, base, part)
        return None if rule is None else SetAside(row.line, "skipped", rule.reason, row.raw)

    def _needs(
        self, row: Row, values: dict[str, Value]
    ) -> list[tuple[int, str, str, dict[str, Any], Part]]:
        """Prerequisites of a row that were not made before."""
        wanted = []
        for index, target in enumerate(self._mapping.needs):
            once = target.once.text(values) if target.once is not None else ""
            key = _key(target, values)
            if (index, key, once) not in self._made:
                wanted.append((index, once, *_render(row, target, values)))
        return wanted

    def name(self, kind: str, key: str, base: dict[str, Any], items: str, parts: list[Part]) -> str:
        """The id of a command with this content."""
        content = (kind, key, base, items, [part.value for part in parts])
        digest = hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=10).hexdigest()
        attempt = f".{self._attempt}" if self._attempt > 1 else ""
        return f"{self._mapping.name}.{parts[0].line}.{digest}{attempt}"

    def without(self, command: Planned, index: int) -> Planned | None:
        """The same command without one of its items; None when nothing is left."""
        parts = [part for place, part in enumerate(command.parts) if place != index]
        if not parts:
            return None
        name = self.name(command.type, command.key, command.base, command.items, parts)
        return msgspec.structs.replace(command, id=name, parts=tuple(parts))

    @property
    def items_per_command(self) -> int:
        """Items that one command holds at most."""
        return self._mapping.items_per_command


class _Collector:
    """Gathers the items of a window into commands."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._open: dict[tuple[int, str, bytes], _Group] = {}
        self._groups: list[_Group] = []

    def add(
        self, rank: int, target: CompiledTarget, key: str, base: dict[str, Any], part: Part
    ) -> None:
        """Add one part; parts of one target (which `rank` numbers), key and base share commands."""
        if not target.items:
            group = _Group(rank, target, key, base)
            self._groups.append(group)
        else:
            place = (rank, key, msgspec.msgpack.encode(base))
            found = self._open.get(place)
            if found is None or len(found.parts) >= self._planner.items_per_command:
                found = self._open[place] = _Group(rank, target, key, base)
                self._groups.append(found)
            group = found
        group.parts.append(part)

    def planned(self) -> tuple[Planned, ...]:
        """The commands: by rank, and within one in the order of their first rows."""
        return tuple(
            Planned(
                id=self._planner.name(
                    group.target.type, group.key, group.base, group.target.items, group.parts
                ),
                type=group.target.type,
                key=group.key,
                items=group.target.items,
                base=group.base,
                parts=tuple(group.parts),
            )
            for group in sorted(self._groups, key=lambda group: group.rank)
        )


def _key(target: CompiledTarget, values: dict[str, Value]) -> str:
    key = target.key.text(values)
    if not is_name(key):
        raise BadValue(f"the key {key!r} is not 1-128 characters of A-Z a-z 0-9 . _ : -")
    return key


def _render(
    row: Row, target: CompiledTarget, values: dict[str, Value]
) -> tuple[str, dict[str, Any], Part]:
    """(key, data without items, part) of a row.  Raises `BadValue`."""
    base = target.render_data(values)
    value = target.render_item(values) if target.items else None
    return _key(target, values), base, Part(row.line, row.raw, value)
