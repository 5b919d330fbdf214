"""Declared tables as Markdown, for the pages of users."""

from ultraengine.model.projection import (
    Column,
    ColumnType,
    Fold,
    Index,
    Projection,
    Table,
    TableKind,
)
from ultraengine.projection.target import view

_KINDS = {
    TableKind.APPEND: "Facts, each written once.",
    TableKind.CURRENT: "One row per key, as of the newest event.",
    TableKind.AGGREGATE: "Computed in the database, slice by slice.",
}


def tables_markdown(projection: Projection) -> str:
    """A section per table: what it is, its columns, its key, indexes and checks."""
    aggregates = [one.table for one in projection.aggregates]
    tables = [*projection.tables, *aggregates]
    return "".join(f"\n{_section(projection.name, table)}\n" for table in tables) + "\n"


def _section(projection: str, table: Table) -> str:
    lines = [
        f"## {view(projection, table.name)}",
        "",
        f"{table.summary} {_kept(table)}".strip(),
        "",
        "| Column | Type | |",
        "|---|---|---|",
        *(
            f"| `{column.name}` | {_type(column)} | {_summary(column)} |"
            for column in table.columns
        ),
        "",
        f"Key: {_names(table.key)}.",
    ]
    lines += [f"Index{_manner(index)}: {_names(index.columns)}." for index in table.indexes]
    if table.partition is not None:
        lines.append(
            f"Partitions: by `{table.partition.column}`, a {table.partition.interval} each."
        )
    if table.checks:
        lines.append("Checks:")
        lines.append("")
        lines += [
            f"- `{check.name}`: `{check.condition.replace('{', '').replace('}', '')}`"
            for check in table.checks
        ]
    return "\n".join(lines)


def _manner(index: Index) -> str:
    if index.unique:
        return " (unique)"
    return " (sparse)" if index.sparse else ""


def _kept(table: Table) -> str:
    rollup = table.rollup
    if rollup is None:
        return _KINDS[table.kind]
    looked_up = f"{rollup.source.name}.{rollup.column}"
    spans = ", ".join(str(span) for span in rollup.spans_s)
    return f"Summed by `{looked_up}` and by spans of {spans} seconds, with the events."


def _type(column: Column) -> str:
    length = column.length if column.type in {ColumnType.TEXT, ColumnType.BYTES} else None
    text = str(column.type) if length is None else f"{column.type}({length})"
    return f"{text}, may be null" if column.nullable else text


def _summary(column: Column) -> str:
    fold = "" if column.fold is Fold.LAST else f" Folded by {column.fold}."
    return f"{column.summary}{fold}".replace("|", "\\|")


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
