"""From rows to commands: stable ids, prerequisites first, nothing lost."""

from collections.abc import Sequence

import pytest

from ultraengine.cli.importing.mapping import Mapping, read_mapping
from ultraengine.cli.importing.plan import Planner, Window
from ultraengine.cli.importing.table import BadRow, Row

TEXT = """
name = "till"
items_per_command = 3
[table]
columns = ["book", "who", "paid"]
[[skip]]
value = "{paid|minor:2}"
equals = "0"
reason = "nothing paid"
[[needs]]
type = "ledger.open_accounts"
key = "{book}"
once = "shop"
items = "accounts"
item = { id = "shop", asset = "USD/2" }
[[needs]]
type = "ledger.open_accounts"
key = "{book}"
once = "{who}"
items = "accounts"
item = { id = "{who}", asset = "USD/2" }
[row]
type = "ledger.create_transfers"
key = "{book}"
items = "transfers"
item = { id = "t-{line}", from = "{who}", to = "shop", amount = "{paid|minor:2}" }
"""
SINGLE = """
name = "single"
[table]
columns = ["book", "who", "paid"]
[row]
type = "counter.add"
key = "{book}"
data = { amount = "{paid|int}", note = "row {row}" }
"""


@pytest.fixture
def mapping() -> Mapping:
    return read_mapping(TEXT.encode())


def table(*texts: str) -> list[Row | BadRow]:
    return [Row(line, text.split(), text) for line, text in enumerate(texts, start=2)]


def windows(mapping: Mapping, rows: Sequence[Row | BadRow], attempt: int = 1) -> list[Window]:
    return list(Planner(mapping, attempt=attempt).windows(rows))


def test_rows_of_one_key_share_commands_up_to_the_limit(mapping: Mapping) -> None:
    rows = table("b1 al 1.00", "b2 al 2.00", "b1 bo 3.00", "b1 al 4.00", "b1 al 5.00")
    (window,) = windows(mapping, rows)
    assert [
        (command.key, [part.line for part in command.parts]) for command in window.commands
    ] == [("b1", [2, 4, 5]), ("b2", [3]), ("b1", [6])]
    assert window.commands[1].data == {
        "transfers": [{"id": "t-3", "from": "al", "to": "shop", "amount": "200"}]
    }
    assert (window.rows, window.last_line) == (5, 6)


def test_prerequisites_come_once_for_each_key_and_in_the_order_of_the_mapping(
    mapping: Mapping,
) -> None:
    rows = table("b1 al 1.00", "b1 bo 1.00", "b2 al 1.00", "b1 al 1.00")
    (window,) = windows(mapping, rows)
    assert [
        (command.key, [part.value["id"] for part in command.parts]) for command in window.needs
    ] == [("b1", ["shop"]), ("b2", ["shop"]), ("b1", ["al", "bo"]), ("b2", ["al"])]


def test_prerequisites_of_an_earlier_window_are_not_made_again(mapping: Mapping) -> None:
    rows = table(*["b1 al 1.00"] * 5, "b1 bo 1.00")
    first, second = Planner(mapping, window_rows=4).windows(rows)
    assert len(first.needs) == 2
    assert [part.value["id"] for command in second.needs for part in command.parts] == ["bo"]
    assert (first.number, second.number, second.rows) == (0, 1, 2)


def test_ids_are_a_function_of_content_place_and_attempt(mapping: Mapping) -> None:
    rows = table("b1 al 1.00", "b1 bo 2.00")
    ids = [command.id for command in windows(mapping, rows)[0].commands]
    assert ids == [command.id for command in windows(mapping, rows)[0].commands]
    assert ids[0].startswith("till.2.")
    others = [
        windows(mapping, table("b1 al 1.00", "b1 bo 2.01")),
        windows(mapping, table("b1 al 1.00")),
        windows(mapping, rows, attempt=2),
        windows(mapping, [Row(3, ["b1", "al", "1.00"], ""), Row(4, ["b1", "bo", "2.00"], "")]),
    ]
    names = {made[0].commands[0].id for made in others}
    assert len(names) == 4
    assert ids[0] not in names


def test_skipped_and_bad_rows_are_set_aside_with_their_lines(mapping: Mapping) -> None:
    rows: list[Row | BadRow] = [
        *table("b1 al 0.00", "b1 al x", "bad/key al 1.00", "b1 bo 1.00"),
        BadRow(9, "2 columns instead of 3", "b1 al"),
    ]
    (window,) = windows(mapping, rows)
    assert [(row.line, row.kind, row.reason) for row in window.aside] == [
        (2, "skipped", "nothing paid"),
        (3, "bad", "'x' is not a decimal number"),
        (4, "bad", "the key 'bad/key' is not 1-128 characters of A-Z a-z 0-9 . _ : -"),
        (9, "bad", "2 columns instead of 3"),
    ]
    made = [part.value["id"] for command in window.needs for part in command.parts]
    assert made == ["shop", "bo"], "a row that is set aside needs nothing"


def test_a_rule_may_keep_what_a_skipped_row_needs() -> None:
    text = TEXT.replace('reason = "nothing paid"', 'reason = "nothing paid"\nkeep_needs = true')
    (window,) = windows(read_mapping(text.encode()), table("b1 al 0.00"))
    assert [part.value["id"] for command in window.needs for part in command.parts] == [
        "shop",
        "al",
    ]
    assert window.commands == ()


def test_without_items_each_row_is_a_command() -> None:
    (window,) = windows(read_mapping(SINGLE.encode()), table("b1 al 5", "b1 al 6"))
    assert [command.data for command in window.commands] == [
        {"amount": 5, "note": "row 1"},
        {"amount": 6, "note": "row 2"},
    ]
    assert len({command.id for command in window.commands}) == 2


def test_a_command_without_one_item_is_another_command(mapping: Mapping) -> None:
    planner = Planner(mapping)
    (window,) = planner.windows(table("b1 al 1.00", "b1 bo 2.00"))
    (command,) = window.commands
    rest = planner.without(command, 0)
    assert rest is not None
    assert [part.line for part in rest.parts] == [3]
    assert rest.id != command.id
    assert planner.without(rest, 0) is None


def test_no_rows_make_no_window(mapping: Mapping) -> None:
    assert windows(mapping, []) == []
