"""`ultra projection ddl`: the tables and views of domains as SQL, for any database.

Nothing is connected to and nothing is run: for reading, for review by whoever runs the database,
and for databases that the engine cannot fill yet.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from ultraengine.cli.domains import add_domains, import_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.model.projection import Projecting, Projection, check_projection
from ultraengine.projection.dialect import Dialect
from ultraengine.projection.dialects import DIALECTS, GENERATED, dialect
from ultraengine.projection.engine_tables import engine_tables

STORAGE: Final = {
    "columnstore": "store facts by column (sqlserver, oracle)",
    "in_memory": "keep current rows in memory (sqlserver)",
}
_ENDS: Final = {"sqlserver": "\nGO\n", "oracle": "\n/\n"}
"""What a database's own tools want after a statement, where it is not a semicolon."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--dialect", required=True, choices=tuple(DIALECTS), help="whose SQL")
    add_domains(parser)
    parser.add_argument(
        "--build", type=int, default=1, help="number of the set in the tables' names (1)"
    )
    for name, summary in STORAGE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=summary)


def run(arguments: argparse.Namespace) -> int:
    """Print the statements in the order in which they are to be run."""
    wanted = [name for name in STORAGE if vars(arguments)[name]]
    try:
        made = dialect(arguments.dialect, *wanted)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    projections = [
        projection
        for domain in import_domains(arguments.domain)
        if isinstance(domain, Projecting)
        for projection in domain.projections
    ]
    if not projections:
        raise CommandFailed("no domain has tables", advice="name one with --domain")
    end = _ENDS.get(arguments.dialect, ";\n")
    for statement in statements(made, projections, arguments.build):
        print(statement, end=end)
    return Exit.OK


def statements(made: Dialect, projections: Sequence[Projection], build: int) -> Iterator[str]:
    """The engine's own tables where no driver makes them; tables and views of one set of each."""
    if made.name in GENERATED:
        for table in engine_tables:
            yield from made.create_table(table.name, table)
    for projection in projections:
        check_projection(projection)
        suffix = f"v{projection.version}_b{build}"
        yield from made.create_set(projection, suffix)
        yield from made.swap_views(projection, suffix)
