"""Mapping files: strict, compiled once, every mistake reported together."""

from pathlib import Path

import pytest

from ultraengine.cli.importing.expressions import Value
from ultraengine.cli.importing.mapping import MappingErrors, read_mapping

SMALL = """
name = "small"
[table]
columns = ["who", "paid"]
[row]
type = "ledger.create_transfers"
key = "book"
items = "transfers"
item = { id = "t-{line}", amount = "{paid|minor:2}", to = "shop", tags = ["{who}", 1, true] }
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(MappingErrors) as caught:
        read_mapping(text.encode())
    return caught.value.mistakes


def test_a_small_mapping_has_sensible_defaults() -> None:
    mapping = read_mapping(SMALL.encode())
    assert (mapping.table.format, mapping.table.header_lines, mapping.items_per_command) == (
        "csv",
        1,
        500,
    )
    assert mapping.done == {"opened", "posted", "pending", "exists"}
    row: dict[str, Value] = {"who": "alice", "paid": "1.50", "line": 7, "row": 6, "null": None}
    assert mapping.row.render_item(row) == {
        "id": "t-7",
        "amount": "150",
        "to": "shop",
        "tags": ["alice", 1, True],
    }
    assert mapping.row.render_data(row) == {}


def test_the_digest_is_that_of_the_file() -> None:
    one, two = read_mapping(SMALL.encode()), read_mapping((SMALL + "\n").encode())
    assert one.digest == read_mapping(SMALL.encode()).digest
    assert one.digest != two.digest


def test_the_shipped_examples_are_good() -> None:
    examples = sorted((Path(__file__).parents[3] / "examples").glob("*.toml"))
    assert examples
    for path in examples:
        assert read_mapping(path.read_bytes()).needs


def test_all_mistakes_are_reported_together() -> None:
    text = """
name = "with space"
items_per_command = 5000
[table]
columns = ["a", "a", "line"]
delimiter = ";;"
header_lines = -1
encoding = "utf-99"
[row]
type = "not a type"
key = "{b}"
once = "{a}"
item = { amount = 1.5 }
[[needs]]
type = "ledger.open_accounts"
key = "k"
items = "accounts"
item = { id = "{a|nope}" }
[[skip]]
value = "{c}"
equals = ""
reason = "none"
"""
    places = [mistake.partition(":")[0] for mistake in mistakes(text)]
    assert places == [
        "name",
        "items_per_command",
        "table.columns",
        "table.columns",
        "table",
        "table.header_lines",
        "table.encoding",
        "row.type",
        "row",
        "row.once",
        "row.key",
        "row.item.amount",
        "needs[0].once",
        "needs[0].item.id",
        "skip[0].value",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name = ", "Invalid value"),
        (SMALL + "\n[surprise]\n", "surprise"),
        (SMALL.replace('name = "small"', ""), "name"),
    ],
)
def test_what_is_no_mapping_is_one_mistake(text: str, part: str) -> None:
    (mistake,) = mistakes(text)
    assert part in mistake


def test_undecodable_bytes_are_a_mistake() -> None:
    with pytest.raises(MappingErrors):
        read_mapping(b"\xff\xfe")
