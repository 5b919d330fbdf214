"""A stream before many shards: replies come in order per shard, and no shard waits for another.

A frame is taken apart by shard.  What is answered in order stands in one line for each shard;
what was refused here is answered at once.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from ultraengine.gateway.admission import Intake
from ultraengine.gateway.envelope import Parsed
from ultraengine.gateway.stream import Stream, Waiting
from ultraengine.model.ids import ShardId
from ultraengine.router.partition import split


class RoutedStream(Stream):
    """One open WebSocket of a front."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._lines: dict[ShardId, deque[Waiting]] = {}

    def _hand_in(self, parsed: Sequence[Parsed], intake: Intake, size: int) -> None:
        """Submit the commands of a frame, each shard's for itself."""
        refused = dict(intake.errors)
        if refused:
            errors = list(enumerate(refused.values()))
            items = [parsed[index] for index in refused]
            self._wait_for(Waiting(items, Intake([], errors), 0), deque())
        taken = [item for index, item in enumerate(parsed) if index not in refused]
        routed: Sequence[Any] = intake.admitted
        for shard, places in split([one.shard for one in routed]).items():
            line = self._lines.setdefault(shard, deque())
            part = [taken[place] for place in places]
            admitted = [routed[place] for place in places]
            # The frame's bytes are counted by commands: what they are alone is not known.
            share = size * len(places) // len(parsed)
            self._wait_for(Waiting(part, Intake(admitted, []), share), line)

    def _over(self, waiting: Waiting) -> None:
        """Let what is answered go to the socket, in the order of its line."""
        waiting.over = True
        line = waiting.line
        while line and line[0].over:
            self._queue.append(line.popleft())
        super()._over(waiting)
