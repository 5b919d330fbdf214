"""A small world for tests of the worker: a shop that sells, its tables, and its log."""

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from ultraengine.execution import system
from ultraengine.log.serializer import serializers
from ultraengine.model.command import Command
from ultraengine.model.domain import Domain
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.projection import (
    Aggregate,
    Check,
    Column,
    ColumnType,
    Fold,
    Rows,
    Source,
    Table,
    TableKind,
)
from ultraengine.projection.decode import Decoder
from ultraengine.projection.projector import Declared, declared
from ultraengine.testing.memory_feed import GroupLog

DAY_US: Final = 86_400_000_000
T0: Final = Instant(1_767_225_600_000_000)


class Sold(msgspec.Struct, frozen=True, array_like=True, tag=1):
    item: str
    amount: int


class Returned(msgspec.Struct, frozen=True, array_like=True, tag=2):
    item: str
    amount: int


class Poisoned(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What no projection of the first release can take."""

    item: str


def column(name: str, type: ColumnType = ColumnType.INTEGER, **more: Any) -> Column:
    return Column(name=name, type=type, **more)


TENANT = column("tenant", ColumnType.TEXT)
SALE = Table(
    name="sale",
    kind=TableKind.APPEND,
    columns=(
        TENANT,
        column("shard"),
        column("log_offset"),
        column("event"),
        column("shop", ColumnType.TEXT),
        column("item", ColumnType.TEXT),
        column("amount"),
        column("buyer", ColumnType.TEXT),
        column("booked_at", ColumnType.TIME),
    ),
    key=("tenant", "shard", "log_offset", "event"),
    checks=(Check("bounded", "{amount} <= 1000"),),
)
TOTAL = Table(
    name="total",
    kind=TableKind.CURRENT,
    columns=(
        TENANT,
        column("item", ColumnType.TEXT),
        column("day", ColumnType.DATE),
        column("amount", fold=Fold.SUM),
        column("best", fold=Fold.MAX),
        column("last"),
    ),
    key=("tenant", "item", "day"),
)
DAY = Aggregate(
    table=Table(
        name="day_total",
        kind=TableKind.AGGREGATE,
        columns=(TENANT, column("day", ColumnType.DATE), column("amount")),
        key=("tenant", "day"),
        checks=(Check("small", "{amount} < 1000000"),),
    ),
    source="total",
    slice_column="day",
    select="SELECT {tenant}, {day}, SUM({amount}) FROM {table:total} WHERE {slice} "
    "GROUP BY {tenant}, {day}",
)


class ShopTables:
    """A projection; `takes_poison` is the release that was mended."""

    name = "shop"
    tables = (SALE, TOTAL)
    aggregates = (DAY,)

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.takes_poison = False

    def project(self, event: Any, at: Source, rows: Rows) -> None:
        if isinstance(event, Poisoned):
            if not self.takes_poison:
                raise ValueError(f"nobody knows {event.item}")
            return
        sign = 1 if isinstance(event, Sold) else -1
        rows.append(
            "sale",
            (at.tenant, at.shard, at.offset, at.index, at.key, event.item, sign * event.amount,
             at.principal, at.time),
        )  # fmt: skip
        amount = sign * event.amount
        rows.put(
            "total",
            (at.tenant, event.item, at.time // DAY_US, amount, amount, at.offset),
        )


class AuditTables:
    """A second projection of the same domain, with a table of its own."""

    name = "audit"
    version = 1
    tables = (
        Table(
            name="seen",
            kind=TableKind.CURRENT,
            columns=(
                TENANT,
                column("type", ColumnType.TEXT, length=64),
                column("count", fold=Fold.SUM),
            ),
            key=("tenant", "type"),
        ),
    )
    aggregates: Sequence[Aggregate] = ()

    def project(self, event: Any, at: Source, rows: Rows) -> None:
        rows.put("seen", (at.tenant, type(event).__name__, 1))


class Shop:
    """As much of a domain as a projection worker needs."""

    name = "shop"
    events = Sold | Returned | Poisoned

    def __init__(self, *projections: Any) -> None:
        self.projections = projections or (ShopTables(),)


def as_domains(*domains: Any) -> list[Domain]:
    return [cast("Domain", one) for one in domains]


def members(*projections: Any) -> tuple[Declared, ...]:
    return declared(as_domains(Shop(*projections)))


def decoder() -> Decoder:
    return Decoder(as_domains(Shop()), serializers())


def command(number: int, *, tenant: str = "acme", kind: str = "shop.sell@1") -> Command:
    return Command(
        f"c-{number}", kind, f"shop-{number % 3}", msgspec.Raw(b"\x80"), tenant,
        f"till-{number % 2}", None, None, f"trace-{number}",
    )  # fmt: skip


def sale(number: int) -> tuple[Command, list[Any]]:
    """A command and its events: some have two, some give back what others sold."""
    item = f"item-{number % 5}"
    events: list[Any] = [Sold(item, number % 90 + 1)]
    if number % 4 == 0:
        events.append(Sold("bag", 1))
    if number % 7 == 0:
        events = [Returned(item, 1)]
    return command(number), events


def busy_log(shard: int, groups: int, *, seed: int = 0) -> GroupLog:
    """A log with rejections, foreign commands, empty commands and several days."""
    log, number = GroupLog(ShardId(shard)), 1_000 * shard + seed
    for group in range(groups):
        commands: list[tuple[Command, Sequence[Any] | None]] = []
        for _ in range(1 + (group + seed) % 4):
            number += 1
            commands.append(sale(number) if number % 6 else (command(number), None))
        if group % 5 == 2:
            commands.append((command(number, kind="other.thing@1"), ["unreadable"]))
            commands.append((command(number), []))
        log.add(Instant(T0 + group * DAY_US // 3), commands)
    return log


def tick(
    triples: Sequence[tuple[str, str, Any]], domain: str = "shop"
) -> tuple[Command, list[Any]]:
    """What the engine logs when timers are over."""
    made = system.system_command(system.Tick(domain, 100), offset=Offset(0))
    return made, list(triples)


def override(offset: int) -> tuple[Command, list[Any]]:
    """A person's `ultra log skip`."""
    return system.system_command(system.Skip(offset, "by hand"), offset=Offset(0)), []


def activation(*after: int) -> tuple[Command, list[Any]]:
    """A slot is owned from here on that another shard had below an offset of its log; without the
    two, another step of a slot's move."""
    past = (after[0], after[1]) if after else None
    step = system.StepSlot(7, False, msgspec.Raw(b"\xc0"), past)
    return system.system_command(step, offset=Offset(0)), []


def moved_logs(*, backwards: bool = False) -> tuple[GroupLog, GroupLog]:
    """Two shards; what sells ``x`` is at one and then at the other, and perhaps back again."""
    first, second = GroupLog(ShardId(0)), GroupLog(ShardId(1))
    for number in range(5):
        first.add(T0, [(command(number), [Sold("x", 1)])])
    second.add(T0, [activation(0, first.end)])
    second.add(T0, [(command(10), [Sold("x", 2)])])
    if backwards:
        first.add(T0, [sale(20), activation(1, second.end), (command(21), [Sold("x", 4)])])
    return first, second
