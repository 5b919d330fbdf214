"""Snapshots of older and newer schemas: loaded, refused by name, or written back.

`golden/schema-<n>.snap` are snapshots of a small book of balances as its release n wrote them.
Every one of them has to load for ever.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.image import Section
from ultraengine.snapshot.loader import open_snapshot
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migration, Migrations, Readable

Balances = dict[tuple[str, str], int]

EXPECTED: Balances = {
    ("ann", "EUR"): 500,
    ("bob", "EUR"): -20,
    ("cyd", "EUR"): 0,
}


def encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def decode(chunk: bytes) -> Any:
    return msgspec.msgpack.decode(chunk)


# Release 1 kept [name, cents]; release 2 added the currency, all being EUR; release 3 keeps
# one chunk per account: [name, {currency: cents}].


def with_currency(chunk: bytes) -> Iterable[bytes]:
    yield encode([[name, cents, "EUR"] for name, cents in decode(chunk)])


def by_account(chunk: bytes) -> Iterator[bytes]:
    for name, cents, currency in decode(chunk):
        yield encode([name, {currency: cents}])


def by_row(chunk: bytes) -> Iterable[bytes]:
    name, balances = decode(chunk)
    yield encode([[name, cents, currency] for currency, cents in sorted(balances.items())])


def without_currency(chunk: bytes) -> Iterable[bytes]:
    yield encode([[name, cents] for name, cents, currency in decode(chunk) if currency == "EUR"])


STEPS = (
    Migration(name="book", from_schema=1, to_schema=2, migrate=with_currency),
    Migration(name="book", from_schema=2, to_schema=3, migrate=by_account),
    Migration(name="book", from_schema=3, to_schema=2, migrate=by_row),
    Migration(name="book", from_schema=2, to_schema=1, migrate=without_currency),
)
TODAY = Migrations({"book": Readable(3, oldest=3), "versions": Readable(4, oldest=2)}, STEPS)


def read_today(sections: Iterable[Section]) -> Balances:
    """What release 3 loads."""
    found: Balances = {}
    for stored in sections:
        for section in TODAY.forward(stored):
            if section.name == "book":
                assert section.schema == 3
                name, balances = decode(section.chunk)
                for currency, cents in balances.items():
                    found[name, currency] = cents
    return found


def sections_of(path: Path, samples: Any) -> list[Section]:
    source = samples.source(path.read_bytes())
    return list(open_snapshot(source, path.name, Codecs(), key_of=samples.key_of).sections())


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_what_every_release_wrote_still_loads(samples: Any, schema: int) -> None:
    sections = sections_of(samples.golden / f"schema-{schema}.snap", samples)
    assert {section.schema for section in sections} == {schema}
    assert read_today(sections) == EXPECTED


@pytest.mark.parametrize("target", [1, 2, 3])
def test_a_downgrade_writes_what_the_older_release_wrote(samples: Any, target: int) -> None:
    newest = sections_of(samples.golden / "schema-3.snap", samples)
    back = [older for each in newest for older in TODAY.backward(each, {"book": target})]
    then = sections_of(samples.golden / f"schema-{target}.snap", samples)
    assert {section.schema for section in back} == {target}

    def rows(sections: list[Section]) -> list[Any]:
        return [row for each in sections for row in decode(each.chunk)]

    assert rows(back) == rows(then)
    assert read_today(back) == EXPECTED


def test_sections_keep_slot_name_and_order() -> None:
    chunk = encode([["ann", 1], ["bob", 2]])
    found = list(TODAY.forward(Section(5, "book", 1, chunk)))
    assert [(each.slot, each.name, each.schema) for each in found] == [(5, "book", 3)] * 2
    assert [decode(each.chunk)[0] for each in found] == ["ann", "bob"]


def test_what_an_owner_loads_by_itself_is_left_as_it_is() -> None:
    for schema in (2, 3, 4):
        section = Section(1, "versions", schema, b"x")
        assert list(TODAY.forward(section)) == [section]


UNREADABLE = {
    "newer": Section(7, "book", 4, b""),
    "too old": Section(7, "versions", 1, b""),
    "nobody's": Section(7, "orders", 1, b""),
}
MESSAGES = {
    "newer": "section 'book' of slot 7 has schema 4; this release reads up to 3."
    " Start the release that wrote it, or let that release convert it to schema 3",
    "too old": "section 'versions' of slot 7 has schema 1; this release loads 2 to 4"
    " and has no migration from 1",
    "nobody's": "slot 7 has a section 'orders' that this process has no owner for;"
    " it has book, versions",
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_refused_by_name_and_number(case: str) -> None:
    with pytest.raises(SnapshotRefused) as caught:
        list(TODAY.forward(UNREADABLE[case]))
    assert str(caught.value) == MESSAGES[case]


def test_a_downgrade_without_a_way_is_refused() -> None:
    with pytest.raises(SnapshotRefused, match="'versions' leads from schema 4 to 3"):
        list(TODAY.backward(Section(1, "versions", 4, b""), {"versions": 3}))
    same = Section(1, "versions", 4, b"x")
    assert list(TODAY.backward(same, {"book": 1})) == [same]


def test_the_shortest_way_in_one_direction_is_taken() -> None:
    def step(start: int, end: int) -> Migration:
        return Migration(
            name="n",
            from_schema=start,
            to_schema=end,
            migrate=lambda chunk: [chunk + f" {start}>{end}".encode()],
        )

    steps = [step(1, 2), step(2, 3), step(3, 4), step(1, 3), step(4, 2), step(3, 1), step(3, 9)]
    migrations = Migrations({"n": Readable(4)}, steps)
    (found,) = migrations.forward(Section(0, "n", 1, b""))
    assert (found.schema, found.chunk) == (4, b" 1>3 3>4")
    with pytest.raises(SnapshotRefused):
        # 3 leads to 1, but 4 leads only past it.
        list(migrations.backward(Section(0, "n", 4, b""), {"n": 3}))
    (found,) = migrations.backward(Section(0, "n", 3, b""), {"n": 1})
    assert found.chunk == b" 3>1"


def test_a_migration_may_drop_a_chunk() -> None:
    gone = Migration(name="n", from_schema=1, to_schema=2, migrate=lambda _: ())
    migrations = Migrations({"n": Readable(2)}, [gone])
    assert list(migrations.forward(Section(0, "n", 1, b""))) == []


def test_two_answers_to_one_question_are_a_bug() -> None:
    step = STEPS[0]
    with pytest.raises(InvariantBroken, match="one migration between"):
        Migrations({}, [step, step])
    with pytest.raises(InvariantBroken, match="changes the schema"):
        Migrations({}, [msgspec.structs.replace(step, to_schema=1)])


def test_without_owners_nothing_is_checked() -> None:
    section = Section(1, "anything", 99, b"x")
    assert list(NO_MIGRATIONS.forward(section)) == [section]
    newest: Mapping[str, int] = TODAY.newest
    assert newest == {"book": 3, "versions": 4}
