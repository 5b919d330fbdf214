"""Spans of groups, for the traces of the sampled commands in them.

One for a group's write and flush, one for its execution, whatever the number of its commands:
the span belongs to the trace of the first sampled one and links to those of the others.  A group
without a sampled command has none, and without telemetry nothing is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ultraengine.log.driver import Written
from ultraengine.model.ids import Instant, ShardId
from ultraengine.model.trace import is_sampled
from ultraengine.ports import Clock, Telemetry
from ultraengine.shard.effects import Group

LINKS_MAX: Final = 127
"""Traces that a span links to; those of later commands are left out (the SDK keeps 128)."""


def sampled(group: Group) -> Sequence[str]:
    """The traces that record a group: of its commands, in order, each once."""
    parents = (command.traceparent for command in group.commands)
    return list(dict.fromkeys(one for one in parents if one is not None and is_sampled(one)))


class GroupSpans:
    """Tells `Telemetry` of the groups of one shard."""

    def __init__(self, telemetry: Telemetry | None, clock: Clock, shard: ShardId) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._shard = shard

    def flushed(self, group: Group, written: Written, took_s: float) -> None:
        """A group was written and, unless its policy replies before, synced."""
        if self._telemetry is not None:
            facts = {"ultra.bytes": written.bytes, "ultra.sync_us": round(written.sync_s * 1e6)}
            self._tell(self._telemetry, "log.flush", group, took_s, facts)

    def executed(self, group: Group, took_s: float, busy_s: float) -> None:
        """A group was executed, in slices: `took_s` from the first to the end of the last."""
        if self._telemetry is not None:
            facts = {"ultra.busy_us": round(busy_s * 1e6)}
            self._tell(self._telemetry, "shard.execute", group, took_s, facts)

    def _tell(
        self,
        telemetry: Telemetry,
        name: str,
        group: Group,
        took_s: float,
        facts: Mapping[str, int],
    ) -> None:
        traces = sampled(group)
        if not traces:
            return
        end = self._clock.now()
        telemetry.span(
            name,
            start=Instant(end - round(took_s * 1e6)),
            end=end,
            traceparent=traces[0],
            links=traces[1 : 1 + LINKS_MAX],
            attributes={
                "ultra.shard": self._shard,
                "ultra.offset": group.base_offset,
                "ultra.commands": len(group.commands),
                **facts,
            },
        )
