"""A stream before many shards: replies come in order per shard, and no shard waits for another.

A frame is taken apart by shard.  What is answered in order stands in one line for each shard;
what was refused here is answered at once.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from ultraengine.gateway.admission import Intake
from ultraengine.gateway.envelope import Parsed
from ultraengine.gateway.frames import Subscribe
from ultraengine.gateway.relay import Relay
from ultraengine.gateway.routed import RoutedEdge
from ultraengine.gateway.stream import SUBPROTOCOLS, Stream, Waiting, problem_object
from ultraengine.model.errors import EngineError, Malformed
from ultraengine.model.ids import ShardId
from ultraengine.router.partition import split


class RoutedStream(Stream):
    """One open WebSocket of a front."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._lines: dict[ShardId, deque[Waiting]] = {}
        self._routed = cast("RoutedEdge", self._edge)
        self._relays: dict[ShardId, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve the stream to its end."""
        try:
            await super().run()
        finally:
            for task in self._relays.values():
                task.cancel()

    def _hello(self) -> dict[str, Any]:
        shards = self._routed.links.shard_map.shards
        return {**super()._hello(), "capabilities": ["commands", "subscribe"], "shards": shards}

    # --- events --------------------------------------------------------------------------------

    def _subscribe(self, request: Subscribe) -> None:
        """Offsets are those of one shard, so a subscription names it."""
        shards = self._routed.links.shard_map.shards
        shard = shards[0] if request.shard is None and len(shards) == 1 else request.shard
        if shard not in shards:
            listed = ", ".join(map(str, shards))
            error = Malformed(f"name one of the shards {listed} in 'shard'", pointer="/shard")
            self._send(problem_object(error))
        elif shard in self._relays:
            error = Malformed("a stream has one subscription to a shard", pointer="/shard")
            self._send(problem_object(error))
        else:
            relayed = self._relay(ShardId(shard), request)
            self._relays[ShardId(shard)] = self._loop.create_task(relayed)

    async def _relay(self, shard: ShardId, request: Subscribe) -> None:
        """Pass the events of a shard on, as fast as the client reads."""
        edge, codec = self._routed, self._codec
        headers = dict(edge.hop_headers(self.caller))
        subprotocol = next(name for name, one in SUBPROTOCOLS.items() if one is codec)
        relay = Relay(shard, lambda: edge.links.address_of(shard), headers, codec, subprotocol)
        try:
            async for frame in relay.frames(request.from_, request.domains):
                await self._space.wait()
                self._push(frame)
        except EngineError as error:
            self._send(problem_object(error))
            del self._relays[shard]

    # --- commands ------------------------------------------------------------------------------

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
