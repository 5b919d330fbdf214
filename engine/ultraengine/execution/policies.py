"""Shipped policies: how groups are flushed, and which commands enter them.

Behind the Protocols of `model.policy`; contract suites are in `ultraengine.testing.policies`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ultraengine.model.command import Command
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.model.policy import FlushRule
from ultraengine.model.reply import DurabilityName

GROUP_WAIT_S_MAX: Final = 0.005
"""Longest time a group may stay open under ``group``."""
ASYNC_WAIT_S_MAX: Final = 1.0
"""Longest time between execution and flush under ``async``: what a crash may lose."""


class SyncDurability:
    """``sync``: a group is flushed as soon as the disk is free, and replies wait for it."""

    def __init__(self, *, group_bytes_max: int = DEFAULT_LIMITS.group_bytes_max) -> None:
        self._rule = _rule("sync", 0.0, group_bytes_max)

    def rule(self) -> FlushRule:
        """The rule in force."""
        return self._rule


class GroupDurability:
    """``group``: groups stay open a little for more commands; replies wait for the flush."""

    def __init__(
        self, *, wait_s: float = 0.002, group_bytes_max: int = DEFAULT_LIMITS.group_bytes_max
    ) -> None:
        """Raises ValueError unless ``0 < wait_s <= GROUP_WAIT_S_MAX``."""
        _within("wait_s", wait_s, GROUP_WAIT_S_MAX)
        self._rule = _rule("group", wait_s, group_bytes_max)

    def rule(self) -> FlushRule:
        """The rule in force."""
        return self._rule


class AsyncDurability:
    """``async``: replies do not wait for the flush; a crash loses up to ``wait_s``."""

    def __init__(
        self, *, wait_s: float = 0.05, group_bytes_max: int = DEFAULT_LIMITS.group_bytes_max
    ) -> None:
        """Raises ValueError unless ``0 < wait_s <= ASYNC_WAIT_S_MAX``."""
        _within("wait_s", wait_s, ASYNC_WAIT_S_MAX)
        self._rule = _rule("async", wait_s, group_bytes_max)

    def rule(self) -> FlushRule:
        """The rule in force."""
        return self._rule


Durability = SyncDurability | GroupDurability | AsyncDurability


def durability(
    name: str,
    *,
    wait_s: float | None = None,
    group_bytes_max: int = DEFAULT_LIMITS.group_bytes_max,
    replicas: int = 1,
) -> Durability:
    """The shipped policy of a name; `wait_s` None means its default.

    Raises ValueError for an unknown name, for a wait beyond what the policy allows, and for
    anything but ``sync`` with several replicas, whose acknowledgement needs every disk.
    """
    if name == "sync":
        if wait_s:
            raise ValueError(f"sync durability does not wait, not even {wait_s} s")
        return SyncDurability(group_bytes_max=group_bytes_max)
    if name not in ("group", "async"):
        raise ValueError(f"{name!r} is no durability policy; there are sync, group and async")
    if replicas > 1:
        raise ValueError(f"{name} durability is for one replica, not {replicas}: use sync")
    if name == "group":
        wait = 0.002 if wait_s is None else wait_s
        return GroupDurability(wait_s=wait, group_bytes_max=group_bytes_max)
    wait = 0.05 if wait_s is None else wait_s
    return AsyncDurability(wait_s=wait, group_bytes_max=group_bytes_max)


def _within(name: str, value: float, value_max: float) -> None:
    if not 0 < value <= value_max:
        raise ValueError(f"{name} is {value}; it must be above 0 and at most {value_max}")


def _rule(name: DurabilityName, wait_s: float, group_bytes_max: int) -> FlushRule:
    if group_bytes_max < 1:
        raise ValueError(f"group_bytes_max is {group_bytes_max}; it must be above 0")
    return FlushRule(
        name=name,
        wait_s=wait_s,
        group_bytes_max=group_bytes_max,
        reply_before_flush=name == "async",
    )


class FifoScheduling:
    """First come, first served."""

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        """The oldest."""
        return range(min(len(waiting), count_max))


class FairScheduling:
    """Tenants take turns, so that one with a long queue delays the others by one turn only.

    Order of the turns: by each tenant's oldest waiting command; so the oldest of all is in
    every group, and nobody starves.  A tenant takes as many commands per turn as its weight.
    """

    def __init__(self, weights: Mapping[str, int] | None = None) -> None:
        """`weights`: commands per turn by tenant, 1 for others.  Raises ValueError below 1."""
        self._weights = dict(weights or {})
        for tenant, weight in self._weights.items():
            if weight < 1:
                raise ValueError(f"tenant {tenant!r} has weight {weight}; it must be at least 1")

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        """Turn by turn; within a tenant, the oldest first."""
        if len(waiting) <= count_max and len({command.tenant for command in waiting}) < 2:
            return range(len(waiting))
        queues: dict[str, list[int]] = {}
        for index, command in enumerate(waiting):
            queues.setdefault(command.tenant, []).append(index)
        turns: list[tuple[Iterator[int], int]] = [
            (iter(queue), self._weights.get(tenant, 1)) for tenant, queue in queues.items()
        ]
        chosen: list[int] = []
        while turns and len(chosen) < count_max:
            going_on: list[tuple[Iterator[int], int]] = []
            for queue, weight in turns:
                taken = [index for _, index in zip(range(weight), queue, strict=False)]
                chosen += taken
                if len(taken) == weight:
                    going_on.append((queue, weight))
            turns = going_on
        return chosen[:count_max]
