"""Which of the commands that wait make the next group."""

from collections import deque

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.policy import SchedulingPolicy
from ultraengine.shard.effects import Pending


def choose(
    waiting: deque[Pending],
    policy: SchedulingPolicy | None,
    count_max: int,
    bytes_max: int,
) -> tuple[list[Pending], int]:
    """Take the next group's commands out of those that wait, and their bytes together: at least
    one, however long.  Raises `InvariantBroken` for a policy that names a command twice."""
    if policy is not None and waiting:
        commands = [pending.admitted.command for pending in waiting]
        order = policy.choose(commands, count_max)
        everyone = list(waiting)
        chosen = set(order)
        if len(chosen) != len(order) or not chosen:
            raise InvariantBroken("a schedule names each command once", order=list(order))
        waiting.clear()
        waiting.extend(everyone[n] for n in order)
        waiting.extend(p for n, p in enumerate(everyone) if n not in chosen)
        count_max = len(order)
    group: list[Pending] = []
    size = 0
    while waiting and len(group) < count_max:
        length = len(waiting[0].admitted.command.data)
        if group and size + length > bytes_max:
            break
        size += length
        group.append(waiting.popleft())
    return group, size
