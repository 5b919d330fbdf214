"""Databases of real servers, as a plain reader of theirs sees them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
from tests.servers import mariadb as my
from tests.servers import postgres as pg


class Server(msgspec.Struct, frozen=True):
    """One database: where a worker finds it, and how it is read."""

    target: str
    run: Callable[[str], Awaitable[list[tuple[Any, ...]]]]

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows, by a connection of its own; a number is an int and a date a `date`."""

        async def read() -> list[tuple[Any, ...]]:
            return await self.run(statement)

        return [tuple(map(_plain, row)) for row in asyncio.run(read())]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        assert value == int(value), value
        return int(value)
    return value


def day_number(day: date) -> int:
    """Days since 1970."""
    return day.toordinal() - date(1970, 1, 1).toordinal()


def postgres(url: str) -> Server:
    """Read by the owner, whom row-level security does not bind."""

    async def run(statement: str) -> list[tuple[Any, ...]]:
        async with pg.connection(url) as database:
            return [tuple(row) for row in await database.fetch(statement)]

    return Server(url, run)


def mariadb(server: my.MariadbServer, database: str) -> Server:
    """Likewise."""

    async def run(statement: str) -> list[tuple[Any, ...]]:
        async with my.connection(server, database) as held:
            return await held.run(statement)

    return Server(server.url(database), run)
