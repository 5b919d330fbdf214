"""The page of the ledger's tables is what is declared."""

from pathlib import Path

from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.projection import Index
from ultraengine.projection.documents import tables_markdown
from ultraengine.testing.projection_tables import KNOWN, PROBE, ProbeTables

PAGE = Path(__file__).parents[3] / "docs" / "ledger-tables.md"


def test_the_page_of_the_ledgers_tables_is_as_declared() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert tables_markdown(TABLES) in page, "write it anew: make docs"


def test_a_section_names_columns_folds_indexes_partitions_and_checks() -> None:
    text = tables_markdown(PROBE)
    assert "| `paid` | total |  Folded by sum. |" in text
    assert "| `maybe_text` | text(16), may be null |  |" in text
    assert "Index (sparse): `tenant`, `maybe_text`." in text
    assert "Partitions: by `at`, a month each." in text
    assert "- `balanced`: `paid_in = paid_out`" in text
    unique = KNOWN.__class__(
        name="known", kind=KNOWN.kind, columns=KNOWN.columns, key=KNOWN.key,
        indexes=(Index("name", ("name",), unique=True),),
    )  # fmt: skip
    assert "Index (unique): `name`." in tables_markdown(ProbeTables("x", 1, (unique,), ()))
