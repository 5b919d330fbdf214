"""Domains each of which is wrong in one way.  Imported by name, also by other processes."""

import random
import time
from collections.abc import Sequence
from typing import Any

from tests.unit.testing.right_domains import Add, Added, Alarms, Box, Clocks, Right

from ultraengine.execution.layouts import HashLayout
from ultraengine.model.domain import Accepted, Rejection


class DecideWrites(Right):
    """Puts what it decided."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        state.put((context.tenant, context.key), Box(data.n))
        return super().decide(state, data, context)


class DecideTouches(Right):
    """Counts as changed what it only looked at."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        if state.get((context.tenant, context.key)):
            state.touch((context.tenant, context.key))
        return super().decide(state, data, context)


class CheckWrites(Right):
    """Repairs while it checks."""

    def check(self, state: Any) -> Sequence[str]:
        for key in [key for key, _ in state.items()]:
            state.touch(key)
        return ()


class RejectionWrites(Right):
    """Keeps a note of what it rejected."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        answer = super().decide(state, data, context)
        if isinstance(answer, Rejection):
            state.put((context.tenant, context.key), Box(0))
        return answer


class RaisingWrites(Right):
    """Writes before it is done deciding, and puts it right at the end."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        answer = super().decide(state, data, context)
        if isinstance(answer, Accepted):
            self.evolve(state, answer.events[0], context)
            return Accepted((Added(0, 0),))
        return answer


class Raises(Right):
    """Does not expect 13."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        if data.n == 13:
            raise ZeroDivisionError
        return super().decide(state, data, context)


class EvolveRemembers(Right):
    """Evolves by something beside the state."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        self.count += 1
        super().evolve(state, Added(event.n + self.count, event.total), at)


class EvolveReadsDecision(Right):
    """Evolves by what was decided last, which no replay decides."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        self.last = data.n
        return super().decide(state, data, context)

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        super().evolve(state, Added(self.last, event.total), at)


class State:
    """Two layouts, one of which is forgotten."""

    def __init__(self) -> None:
        self.boxes: Any = HashLayout(tuple[str, str], Box)
        self.counts: Any = HashLayout(tuple[str, str], int)


class DumpForgets(Right):
    """Counts commands per key, refuses the fourth, and does not dump the count."""

    def new_state(self) -> Any:
        return State()

    def parts(self, state: State) -> Any:
        return {"boxes": state.boxes}

    def decide(self, state: State, data: Add, context: Any) -> Accepted | Rejection:
        if (state.counts.get((context.tenant, context.key)) or 0) >= 3:
            return Rejection("enough")
        return super().decide(state.boxes, data, context)

    def evolve(self, state: State, event: Added, at: Any) -> None:
        key = (at.tenant, at.key)
        state.counts.put(key, (state.counts.get(key) or 0) + 1)
        super().evolve(state.boxes, event, at)


class LoadAdds(Right):
    """Has more after a load than was dumped."""

    def load(self, state: Any, chunk: bytes, schema: int) -> None:
        super().load(state, chunk, schema)
        state.put(("t", "loaded"), Box(1))


class ForgetsTouch(Right):
    """Mutates in place and tells nobody."""

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        box = state.get((at.tenant, at.key))
        if box is None:
            super().evolve(state, event, at)
        else:
            box.total += event.n


class AnswersHash(Right):
    """Answers with a hash of a string."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        answer = super().decide(state, data, context)
        return (
            Accepted(answer.events, hash(context.key)) if isinstance(answer, Accepted) else answer
        )


class AnswersSetOrder(Right):
    """Answers in the order of a set that no reader of the source can see."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        answer = super().decide(state, data, context)
        names = _names()
        if isinstance(answer, Accepted):
            return Accepted(answer.events, [*names])
        return answer


NAMES = ["apple", "banana", "cherry", "damson", "elderberry", "fig", "grape"]


def _names() -> Any:
    # No display of a set: its order in a compiled file is that of the process that compiled it.
    return set(NAMES)


class KeepsSetOrder(Right):
    """Keeps in the state what it drew from a set."""

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        kept = sum(place * len(name) for place, name in enumerate(_names()))
        super().evolve(state, Added(event.n + kept, event.total), at)


class ReadsClock(Right):
    """Adds by the clock."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        return super().decide(state, Add(data.n + int(time.time()) % 2), context)


class DrawsNumbers(Right):
    """Adds by chance."""

    def evolve(self, state: Any, event: Added, at: Any) -> None:
        super().evolve(state, Added(event.n + random.randint(0, 1), event.total), at)


class CheckFails(Right):
    """Holds what its check forbids."""

    def check(self, state: Any) -> Sequence[str]:
        return [f"{key} holds {box.total}" for key, box in state.items() if box.total > 25]


class NeverAccepts(Right):
    """Says no."""

    def decide(self, state: Any, data: Add, context: Any) -> Accepted | Rejection:
        del state, data, context
        return Rejection("no")


class ExpireWrites(Alarms):
    """Takes alarms out while it looks for them."""

    def expire(self, state: Clocks, now: Any, count_max: int) -> Sequence[tuple[str, str, Any]]:
        rang = super().expire(state, now, count_max)
        for tenant, key, event in rang:
            state.queue.remove((event.due, tenant, key, event.number))
        return rang


class FoldAccepts(Alarms):
    """Calls everything a success."""

    def fold(self, items: Any, verdicts: Sequence[Any]) -> tuple[bool, Any, Rejection | None]:
        del items, verdicts
        return True, None, None


DECIDE_WRITES = DecideWrites()
DECIDE_TOUCHES = DecideTouches()
CHECK_WRITES = CheckWrites()
REJECTION_WRITES = RejectionWrites()
RAISING_WRITES = RaisingWrites()
RAISES = Raises()
EVOLVE_REMEMBERS = EvolveRemembers()
EVOLVE_READS_DECISION = EvolveReadsDecision()
DUMP_FORGETS = DumpForgets()
LOAD_ADDS = LoadAdds()
FORGETS_TOUCH = ForgetsTouch()
ANSWERS_HASH = AnswersHash()
ANSWERS_SET_ORDER = AnswersSetOrder()
KEEPS_SET_ORDER = KeepsSetOrder()
READS_CLOCK = ReadsClock()
DRAWS_NUMBERS = DrawsNumbers()
CHECK_FAILS = CheckFails()
NEVER_ACCEPTS = NeverAccepts()
EXPIRE_WRITES = ExpireWrites()
FOLD_ACCEPTS = FoldAccepts()
