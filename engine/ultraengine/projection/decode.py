"""From a stored group to its events: the only place where the feed's bytes are decoded.

    CommittedGroup -> commands + outcomes -> accepted ones -> (domain, event), `EventSource`

Only commands of the domains that were asked for are decoded further than their envelope.  What a
`system.tick` expired is a list of (tenant, key, event) triples; the source then says whose event
it is.  Pure, and the same for every reading of the same log.

A person may have overridden an outcome (`system.skip`): memory leaves it out from the next start
on, so tables must too.  An override that is met in the log after its command was given out is
reported, and the tables are built anew without it.

A slot of keys may have moved from one shard to another.  Where the log of its new owner says so,
nothing further is given out until the old one's was read up to its end (`Behind`): the events of a
key are given in their order, however the logs are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import GenericAlias
from typing import Any, Final

import msgspec

from ultraengine.execution import system
from ultraengine.model.command import Command
from ultraengine.model.domain import Domain
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.outcome import CommittedGroup, Outcome, Status
from ultraengine.model.policy import LogSerializer

WHOLE: Final = -1
"""Index of what concerns a command, a group or a batch as a whole."""
_ACCEPTED: Final = int(Status.ACCEPTED)
_NO_EVENTS: Final = b"\x90"
Decode = Callable[[bytes], Sequence[Any]]


class Undecodable(Exception):
    """Recorded bytes that this build cannot read: the projection parks there."""

    def __init__(self, offset: Offset, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Behind(Exception):
    """A slot moved here from a shard that was not read far enough yet: read that one first."""

    def __init__(self, shard: ShardId, offset: Offset) -> None:
        super().__init__(f"shard {shard} is read below offset {offset} first")
        self.shard = shard
        self.offset = offset


class EventSource:
    """Where an event stands: a `model.projection.Source`, one object reused for all events."""

    __slots__ = (
        "correlation_id",
        "epoch",
        "id",
        "index",
        "key",
        "offset",
        "principal",
        "shard",
        "tenant",
        "time",
        "type",
    )

    def __init__(self) -> None:
        self.shard = ShardId(0)
        self.epoch = Epoch(0)
        self.offset = Offset(0)
        self.index = 0
        self.time = Instant(0)
        self.tenant = ""
        self.key = ""
        self.type = ""
        self.id = ""
        self.principal = ""
        self.correlation_id: str | None = None


class Decoder:
    """Decodes groups for some domains.  Holds no position: groups may come in any order."""

    def __init__(self, domains: Sequence[Domain], codecs: Mapping[int, LogSerializer]) -> None:
        self._codecs = codecs
        # The unions are values here, which a type checker cannot follow.
        kinds: dict[str, Any] = {domain.name: domain.events for domain in domains}
        self._events: dict[str, Decode] = {
            name: msgspec.msgpack.Decoder(GenericAlias(list, (kind,))).decode
            for name, kind in kinds.items()
        }
        self._expiries: dict[str, Decode] = {
            name: msgspec.msgpack.Decoder(
                GenericAlias(list, (GenericAlias(tuple, (str, str, kind)),))
            ).decode
            for name, kind in kinds.items()
        }
        self.source = EventSource()
        """Where the event that was given last stands."""
        self._overridden: set[tuple[ShardId, Offset]] = set()
        self._late: list[tuple[ShardId, Offset]] = []

    def late_overrides(self) -> list[tuple[ShardId, Offset]]:
        """Overrides met since the last call whose commands may have been given out before."""
        late, self._late = self._late, []
        return late

    def events(
        self, group: CommittedGroup, from_offset: Offset, reached: Callable[[ShardId], Offset]
    ) -> Iterator[tuple[str, Any]]:
        """(domain, event) of the accepted commands from `from_offset` on; `source` says where.

        `reached` says below which offset a shard was given out.  Raises `Undecodable`, and `Behind`
        before the first event.
        """
        source = self.source
        source.shard, source.epoch, source.time = group.shard, group.epoch, group.time
        commands, outcomes = self._payloads(group)
        self._require_past(commands, outcomes, from_offset, reached)
        for command, outcome in zip(commands, outcomes, strict=True):
            if (
                outcome.offset < from_offset
                or outcome.status != _ACCEPTED
                or (group.shard, outcome.offset) in self._overridden
            ):
                continue
            source.offset = Offset(outcome.offset)
            source.tenant, source.key = command.tenant, command.key
            source.type, source.id = command.type, command.id
            source.principal, source.correlation_id = command.principal, command.correlation_id
            domain = command.type.partition(".")[0]
            if domain == "system":
                yield from self._of_engine(command, outcome)
                continue
            decode = self._events.get(domain)
            if decode is not None and bytes(outcome.events) != _NO_EVENTS:
                for source.index, event in enumerate(self._decoded(decode, outcome)):
                    yield domain, event

    def _require_past(
        self,
        commands: Sequence[Command],
        outcomes: Sequence[Outcome],
        from_offset: Offset,
        reached: Callable[[ShardId], Offset],
    ) -> None:
        for command, outcome in zip(commands, outcomes, strict=True):
            if command.type != system.STEP_SLOT or outcome.offset < from_offset:
                continue
            self.source.offset = Offset(outcome.offset)
            after = self._engine_data(command).after
            if after is not None and reached(ShardId(after[0])) < after[1]:
                raise Behind(ShardId(after[0]), Offset(after[1]))

    def _payloads(self, group: CommittedGroup) -> tuple[list[Command], list[Outcome]]:
        serializer = self._codecs.get(group.codec)
        if serializer is None:
            raise Undecodable(group.base_offset, f"payload codec {group.codec} is not known here")
        try:
            commands = serializer.decode_commands(group.commands)
            outcomes = serializer.decode_outcomes(group.outcomes)
        except ValueError as error:
            raise Undecodable(group.base_offset, f"the group cannot be read: {error}") from error
        if not len(commands) == len(outcomes) == group.count:
            raise Undecodable(
                group.base_offset,
                f"the group has {len(commands)} commands and {len(outcomes)} outcomes, "
                f"not {group.count}",
            )
        return commands, outcomes

    def _of_engine(self, command: Command, outcome: Outcome) -> Iterator[tuple[str, Any]]:
        source = self.source
        if command.type == system.TICK:
            domain = self._engine_data(command).domain
            decode = self._expiries.get(domain)
            if decode is not None:
                triples = self._decoded(decode, outcome)
                for source.index, (source.tenant, source.key, event) in enumerate(triples):
                    yield domain, event
        elif command.type == system.SKIP:
            place = (source.shard, Offset(self._engine_data(command).offset))
            if place not in self._overridden:
                self._overridden.add(place)
                self._late.append(place)

    def _engine_data(self, command: Command) -> Any:
        try:
            return system.system_data(command)
        except ValueError as error:
            raise Undecodable(self.source.offset, f"{command.type}: {error}") from error

    def _decoded(self, decode: Decode, outcome: Outcome) -> Sequence[Any]:
        try:
            return decode(outcome.events)
        except ValueError as error:
            raise Undecodable(self.source.offset, f"its events cannot be read: {error}") from error
