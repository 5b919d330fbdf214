"""`ultra projection ddl` prints what a database would be told."""

import argparse

import pytest

from ultraengine.cli import projection_ddl
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.domains.ledger.tables import TABLES


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    projection_ddl.configure(parser)
    assert projection_ddl.run(parser.parse_args(arguments)) == Exit.OK
    return capsys.readouterr().out


@pytest.mark.parametrize(("dialect", "end"), [("mysql", ";"), ("sqlserver", "GO"), ("oracle", "/")])
def test_the_ledger_is_printed_in_the_form_of_the_databases_own_tools(
    capsys: pytest.CaptureFixture[str], dialect: str, end: str
) -> None:
    out = printed(capsys, "--dialect", dialect, "--build", "7")
    assert f"ledger_entry__v{TABLES.version}_b7" in out
    assert out.rstrip().endswith(end)
    # The engine's own tables are for those who have no driver to make them.
    assert ("ultra_projection_position" in out) is (dialect != "mysql")


def test_storage_is_chosen_where_a_database_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--dialect", "sqlserver", "--columnstore", "--in-memory")
    assert "CREATE CLUSTERED COLUMNSTORE INDEX" in out
    assert "MEMORY_OPTIMIZED = ON" in out
    assert "INMEMORY" in printed(capsys, "--dialect", "oracle", "--columnstore")
    with pytest.raises(CommandFailed, match="mysql has no storage columnstore"):
        printed(capsys, "--dialect", "mysql", "--columnstore")


def test_a_domain_without_tables_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="no domain has tables"):
        printed(capsys, "--dialect", "oracle", "--domain", "ultraengine.domains.counter:DOMAIN")
