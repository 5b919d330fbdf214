"""Messages leave with what was done, and with nothing else."""

from typing import Any

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.domains.counter.domain import Added
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.model.domain import CommandSpec, Rejection
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.testing.memory import MemoryDedupe, MemoryHistory


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers to send: negative ones are rejected, 0 raises, above 100 is linked to the next."""

    numbers: list[int]


def decide_item(_state: Any, number: int, context: Any) -> Any:
    """One message per number, before it is known whether the number is good."""
    data = object() if number == 99 else number
    context.send(tenant="t", key="k", type="x.take", id=str(number), data=data)
    if number < 0:
        return Rejection("negative", "")
    return Added(1 // number, number)


def fold(_items: Any, verdicts: Any) -> Any:
    """Accepted, whatever became of the items."""
    return True, len(verdicts), None


class Sender(type(DOMAIN)):  # type: ignore[misc]
    """A counter that tells others, and counts nothing."""

    sends = True

    def evolve(self, _state: Any, _event: Any, _at: Any) -> None:
        """Events change nothing here."""

    @property
    def commands(self) -> Any:
        return [
            CommandSpec(
                name="send_numbers",
                data=Send,
                items=lambda data: data.numbers,
                decide_item=decide_item,
                fold=fold,
                linked=lambda number: number > 100,
                overlay=lambda _state: DOMAIN.new_state(),
                linked_failed=Rejection("linked", ""),
            )
        ]


@pytest.mark.parametrize(
    ("numbers", "sent"),
    [
        ([1, -2, 3, 0, 4], [1, 3, 4]),
        ([-1], []),
        ([0], []),
        ([1, 101, -2, 3], [1, 3]),
        ([101, 2, -3, 102, 0], [101, 2]),
        ([1, 99, 2], [1, 2]),  # What cannot be encoded fails its item, before it is evolved.
        ([99], []),
    ],
)
def test_an_item_that_was_not_done_sends_nothing(numbers: list[int], sent: list[int]) -> None:
    registry = Registry([Sender()])
    executor = Executor(
        registry, ShardId(0), dedupe=MemoryDedupe(), history=MemoryHistory([DOMAIN])
    )
    admitted = registry.admit(
        id="a",
        type="counter.send_numbers",
        key="k",
        data=msgspec.json.encode({"numbers": numbers}),
        codec="json",
        tenant="t",
        principal="p",
        scopes=frozenset({"*:write"}),
    )
    done = executor.execute(admitted, offset=Offset(0), time=Instant(1), epoch=Epoch(1))
    messages = msgspec.msgpack.decode(done.outcome.messages) or []
    assert [message[-1] for message in messages] == sent
