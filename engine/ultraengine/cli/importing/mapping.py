"""A mapping file: which rows become which commands (`docs/import.md`, with an example).

The file is read strictly (unknown members are errors), compiled once, and every mistake in
it is reported together, before the first row is read.
"""

import hashlib
from collections.abc import Mapping as Table
from typing import Any, Final, Literal

import msgspec

from ultraengine.cli.importing.expressions import (
    BUILT_IN,
    BadExpression,
    Template,
    Value,
    compile_template,
)
from ultraengine.model.ids import is_name, split_type
from ultraengine.model.limits import DEFAULT_LIMITS

DONE_STATUSES: Final = ("opened", "posted", "pending", "exists")
"""Statuses of items that are as the mapping asks, by this run or an earlier one."""
NAME_MAX: Final = 64
"""Length of an import's name: ids made of it must stay within 128 characters."""


class MappingErrors(ValueError):
    """All mistakes of a mapping file."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class TableFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the file is cut into rows and columns."""

    columns: list[str]
    """Names of the columns, in order."""
    format: Literal["csv", "whitespace"] = "csv"
    delimiter: str = ","
    quote: str = '"'
    header_lines: int = 1
    """Lines before the first row."""
    encoding: str = "utf-8-sig"


class SkipRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows that are booked nowhere; they are counted and listed."""

    value: str
    equals: str
    reason: str
    keep_needs: bool = False
    """Whether what the row needs (its accounts) is made all the same."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a row becomes: a command of its own, or an item of a command with others."""

    type: str
    key: str
    data: dict[str, Any] = {}
    """Members of the command's data; values may be templates."""
    items: str = ""
    """Member of ``data`` that holds an array of items, one for each row; empty: a command for
    each row."""
    item: dict[str, Any] = {}
    """Members of one item; values may be templates."""
    once: str = ""
    """Only before the first row with this value (prerequisites)."""


class MappingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    name: str
    """Part of all command ids: the same file under the same name is the same import."""
    table: TableFormat
    row: Target
    needs: list[Target] = []
    """What must exist before a row, in order: accounts, for example."""
    skip: list[SkipRule] = []
    items_per_command: int = 500
    done: list[str] = msgspec.field(default_factory=lambda: list(DONE_STATUSES))
    """Statuses of items that mean success."""


class CompiledSkip(msgspec.Struct, frozen=True):
    """A skip rule over compiled templates."""

    value: Template
    equals: str
    reason: str
    keep_needs: bool


class CompiledTarget(msgspec.Struct, frozen=True):
    """A target over compiled templates."""

    type: str
    key: Template
    data: Any
    items: str
    item: Any
    once: Template | None

    def render_item(self, row: Table[str, Value]) -> Any:
        """The item of a row.  Raises `BadValue`."""
        return render(self.item, row)

    def render_data(self, row: Table[str, Value]) -> dict[str, Any]:
        """The data of a row without its items.  Raises `BadValue`."""
        rendered: dict[str, Any] = render(self.data, row)
        return rendered


class Mapping(msgspec.Struct, frozen=True):
    """A compiled mapping."""

    name: str
    digest: str
    """12 hex digits of the file's content."""
    table: TableFormat
    row: CompiledTarget
    needs: tuple[CompiledTarget, ...]
    skip: tuple[CompiledSkip, ...]
    items_per_command: int
    done: frozenset[str]


def render(node: Any, row: Table[str, Value]) -> Any:
    """A structure of templates and constants with the values of a row.  Raises `BadValue`."""
    if isinstance(node, Template):
        return node.value(row)
    if isinstance(node, dict):
        return {name: render(member, row) for name, member in node.items()}
    if isinstance(node, list):
        return [render(member, row) for member in node]
    return node


def read_mapping(content: bytes) -> Mapping:
    """Compile a mapping file.  Raises `MappingErrors` with every mistake."""
    try:
        file = msgspec.toml.decode(content, type=MappingFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MappingErrors([str(error)]) from error
    return _Compiler(file, hashlib.blake2b(content, digest_size=6).hexdigest()).mapping()


class _Compiler:
    """Collects the mistakes of one file while it compiles it."""

    def __init__(self, file: MappingFile, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._mistakes: list[str] = []

    def mapping(self) -> Mapping:
        file = self._file
        self._check_file()
        compiled = Mapping(
            name=file.name,
            digest=self._digest,
            table=file.table,
            row=self._target("row", file.row),
            needs=tuple(
                self._target(f"needs[{index}]", target) for index, target in enumerate(file.needs)
            ),
            skip=tuple(
                CompiledSkip(
                    self._template(f"skip[{index}].value", rule.value),
                    rule.equals,
                    rule.reason,
                    rule.keep_needs,
                )
                for index, rule in enumerate(file.skip)
            ),
            items_per_command=file.items_per_command,
            done=frozenset(file.done),
        )
        if self._mistakes:
            raise MappingErrors(self._mistakes)
        return compiled

    def _check_file(self) -> None:
        file, table = self._file, self._file.table
        if not is_name(file.name) or len(file.name) > NAME_MAX:
            self._mistake("name", f"1-{NAME_MAX} characters of A-Z a-z 0-9 . _ : -")
        if not 1 <= file.items_per_command <= DEFAULT_LIMITS.items_per_command_max:
            most = DEFAULT_LIMITS.items_per_command_max
            self._mistake("items_per_command", f"1 to {most}")
        if not table.columns or len(set(table.columns)) != len(table.columns):
            self._mistake("table.columns", "name every column, each by another name")
        for column in sorted(BUILT_IN & set(table.columns)):
            self._mistake("table.columns", f"{column!r} means something else already")
        if table.format == "csv" and (len(table.delimiter) != 1 or len(table.quote) != 1):
            self._mistake("table", "delimiter and quote are one character each")
        if table.header_lines < 0:
            self._mistake("table.header_lines", "0 or more")
        try:
            "".encode(table.encoding)
        except LookupError:
            self._mistake("table.encoding", f"there is no encoding {table.encoding!r}")

    def _target(self, place: str, target: Target) -> CompiledTarget:
        if split_type(target.type) is None:
            self._mistake(f"{place}.type", f"{target.type!r} is not domain.verb_noun")
        if bool(target.items) != bool(target.item):
            self._mistake(place, "'items' and 'item' belong together")
        if place != "row" and not target.once:
            self._mistake(f"{place}.once", "say for which value it is made once")
        if place == "row" and target.once:
            self._mistake("row.once", "rows are all sent; 'once' belongs to needs")
        return CompiledTarget(
            type=target.type,
            key=self._template(f"{place}.key", target.key),
            data=self._node(f"{place}.data", target.data),
            items=target.items,
            item=self._node(f"{place}.item", target.item),
            once=self._template(f"{place}.once", target.once) if target.once else None,
        )

    def _node(self, place: str, node: Any) -> Any:
        if isinstance(node, str):
            template = self._template(place, node)
            constant = len(template.parts) == 1 and isinstance(template.parts[0], str)
            return template.parts[0] if constant else template
        if isinstance(node, dict):
            return {name: self._node(f"{place}.{name}", member) for name, member in node.items()}
        if isinstance(node, list):
            return [self._node(f"{place}[{index}]", member) for index, member in enumerate(node)]
        if isinstance(node, bool | int):
            return node
        self._mistake(place, f"{node!r} cannot be sent; numbers with decimals are text")
        return None

    def _template(self, place: str, source: str) -> Template:
        try:
            return compile_template(source, self._file.table.columns)
        except BadExpression as error:
            self._mistake(place, str(error))
            return Template(())

    def _mistake(self, place: str, text: str) -> None:
        self._mistakes.append(f"{place}: {text}")
