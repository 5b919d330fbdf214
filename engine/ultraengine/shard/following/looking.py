"""A query answered from the state of a copy, between two of its groups."""

from collections.abc import Callable
from typing import Any

from ultraengine.execution.executor import Executor
from ultraengine.model.domain import QuerySpec
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import slot_of

Look = Callable[[Executor], tuple[Any, int]]
"""To the answer, and the first offset that it does not reflect."""


def look(spec: QuerySpec, domain: str, tenant: str, key: str, params: Any) -> Look:
    """The whole query, as of the last group that was executed."""

    def answer(executor: Executor) -> tuple[Any, int]:
        end = executor.applied_end
        image = executor.slots.get(slot_of(tenant, key))
        point = None if spec.as_of is None else spec.as_of(params)
        lineage = None if image is None else image.lineage
        if point is not None and lineage is not None and not lineage.names(point):
            raise EngineError(
                f"{key} has moved between shards, whose offsets are not one another's: ask by time",
                code="MALFORMED",
                pointer="/at_offset",
            )
        captured = spec.capture(executor.slot_state(domain, tenant, key), tenant, key, params)
        if spec.render is None:
            return captured, end
        index = executor.registry.domain_index[domain]
        history = executor.history_of(image, index, lambda: end)
        return spec.render(captured, params, history), end

    return answer
