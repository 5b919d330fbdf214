"""Every dialect there is, by its name; each is imported when it is asked for."""

import importlib
from typing import Any, Final

from ultraengine.projection.dialect import Dialect

DIALECTS: Final = {
    "sqlite": "ultraengine.projection.sqlite.dialect:SqliteDialect",
    "postgresql": "ultraengine.projection.postgres.dialect:PostgresDialect",
    "mysql": "ultraengine.projection.mysql.dialect:MysqlDialect",
    "sqlserver": "ultraengine.projection.sqlserver.dialect:SqlServerDialect",
    "oracle": "ultraengine.projection.oracle.dialect:OracleDialect",
}
STORAGE: Final = {"sqlserver": ("columnstore", "in_memory"), "oracle": ("columnstore",)}
"""Flags of a dialect's ``Options``, where it has any that change how rows are stored."""
GENERATED: Final = {"mssql": "SQL Server", "sqlserver": "SQL Server", "oracle": "Oracle"}
"""By the scheme of a URL: databases for which SQL is generated, and to which nothing connects."""


def dialect(name: str, *storage: str) -> Dialect:
    """Raises KeyError for a name that is none, ValueError for storage that it does not have."""
    module, _, attribute = DIALECTS[name].partition(":")
    unknown = [one for one in storage if one not in STORAGE.get(name, ())]
    if unknown:
        raise ValueError(f"{name} has no storage {', '.join(unknown)}")
    loaded: Any = importlib.import_module(module)
    options = [loaded.Options(**dict.fromkeys(storage, True))] if storage else []
    made: Dialect = getattr(loaded, attribute)(*options)
    return made


def refusal(scheme: str) -> str | None:
    """Why a URL with this scheme opens no target; None for a scheme that is not refused here."""
    database = GENERATED.get(scheme)
    if database is None:
        return None
    name = "oracle" if scheme == "oracle" else "sqlserver"
    return (
        f"{database} is no target yet: its SQL is generated, and no driver is shipped;"
        f" 'ultra projection ddl --dialect {name}' prints the tables"
    )
