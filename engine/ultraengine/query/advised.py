"""The statements that recorded shapes would run, with values from the data, for `advice.trial`.

Pure.  The text is that of `sql`, so what is tried is what is run.
"""

from collections.abc import Sequence
from typing import Any, Final

from ultraengine.advice.recorder import FilterReport, ShapeReport
from ultraengine.advice.suggest import DESCENDING
from ultraengine.advice.trial import Example, NotAsked, Question
from ultraengine.model.projection import Column, Value
from ultraengine.model.reads import TENANT, Computed, Operator, Order, Read
from ultraengine.projection.target import ProjectionSet
from ultraengine.query.dialect import ReadDialect
from ultraengine.query.plan import Asked, Condition, Shape
from ultraengine.query.positions import Position
from ultraengine.query.routes import Route, SqlRoutes
from ultraengine.query.sql import Moment, statements

_LOW: Final = frozenset({Operator.GT, Operator.GTE})
_HIGH: Final = frozenset({Operator.LT, Operator.LTE})


class RouteAsker:
    """Implements `advice.trial.Asker` for the declared reads."""

    def __init__(self, routes: SqlRoutes, dialect: ReadDialect) -> None:
        self._routes = {route.name: route for route in routes.routes}
        self._dialect = dialect

    @property
    def computed(self) -> dict[str, Computed]:
        """The computed reads by name."""
        reads = {name: route.read for name, route in self._routes.items()}
        return {name: read for name, read in reads.items() if isinstance(read, Computed)}

    def question(
        self, shape: ShapeReport, of: ProjectionSet, examples: Sequence[Example]
    ) -> Question:
        """`Asker.question`: the first example gives what is equal; lists and bounds take more."""
        route = self._routes.get(shape.read)
        if route is None or not isinstance(route.read, Read) or route.read.table != shape.table:
            raise NotAsked(f"{shape.read} is not a list of {shape.table} any more")
        asked = self._asked(route, route.read, shape, examples)
        (statement,) = statements(asked, Moment(of.version, of.build, Position()), self._dialect)
        return Question(statement.text, statement.values)

    def _asked(
        self, route: Route, read: Read, shape: ShapeReport, examples: Sequence[Example]
    ) -> Asked:
        table = route.tables[read.table]

        def values(column: Column) -> list[Value]:
            return [self._dialect.load(one[column.name], column) for one in examples]

        conditions = [
            Condition(table.column(name), Operator.EQ, (values(table.column(name))[0],))
            for name in shape.fixed
        ]
        for one in shape.filters:
            column, operator = table.column(one.column), Operator(one.operator)
            chosen = _chosen(operator, values(column), shape.filters, one)
            conditions.append(Condition(column, operator, chosen))
        return Asked(
            route=route,
            tenant=str(values(table.column(TENANT))[0]),
            shape=Shape(route.name, tuple((one.column, one.operator) for one in shape.filters)),
            conditions=tuple(conditions),
            order=_order(read, shape),
            limit=read.page_items,
        )


def _order(read: Read, shape: ShapeReport) -> Order | None:
    """The declared order of a shape.  Raises `NotAsked`."""
    if not shape.order:
        return None
    columns = tuple(one.removesuffix(DESCENDING) for one in shape.order)
    descending = shape.order[0].endswith(DESCENDING)
    for order in read.orders:
        if order.columns == columns and order.descending is descending:
            return order
    raise NotAsked(f"{shape.read} has no order by {', '.join(shape.order)} any more")


def _chosen(
    operator: Operator,
    values: Sequence[Any],
    filters: Sequence[FilterReport],
    one: FilterReport,
) -> tuple[Value, ...]:
    """Values of a filter: an interval where the shape has both of its ends."""
    if operator is Operator.IN:
        return tuple(dict.fromkeys(values))
    if operator is Operator.PREFIX:
        return (str(values[0])[: max(1, len(str(values[0])) // 2)],)
    if operator is Operator.EQ:
        return (values[0],)
    others = {Operator(other.operator) for other in filters if other.column == one.column}
    if others & _LOW and others & _HIGH:
        return (min(values) if operator in _LOW else max(values),)
    return (values[0],)
