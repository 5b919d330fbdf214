"""What a group of the feed asks to be sent, and what an answer to it means.

A message is a command under the id that its sender gave it, so that it may be sent again until it
is answered: the shard of its key executes it once.  Pure.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from ultraengine.execution.context import Message
from ultraengine.model.errors import PROBLEMS, InvariantBroken
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.outcome import NIL, CommittedGroup
from ultraengine.model.policy import LogSerializer
from ultraengine.model.reply import Reply

CONSUMER: Final = "messages"
"""Name of the consumer slot: the log keeps what asks for messages until they are answered."""
Said = Literal["taken", "again", "refused"]

_MESSAGES: Final = msgspec.msgpack.Decoder(list[Message])
_NIL: Final = bytes(NIL)


class Parcel(msgspec.Struct, frozen=True):
    """One message, and the command that asked for it."""

    shard: ShardId
    offset: Offset
    message: Message
    correlation_id: str | None
    traceparent: str | None

    @property
    def sender(self) -> str:
        """The principal that it is sent as: which shard asked."""
        return f"shard-{self.shard}"


def parcels(
    group: CommittedGroup, codecs: Mapping[int, LogSerializer], from_offset: int
) -> list[Parcel]:
    """The messages of a group from an offset on, in the order in which they were asked for.

    Raises `InvariantBroken` for a codec that is not known here, ValueError for unreadable bytes.
    """
    serializer = codecs.get(group.codec)
    if serializer is None:
        raise InvariantBroken("the log's codec is known", codec=group.codec)
    asking = [
        one
        for one in serializer.decode_outcomes(group.outcomes)
        if one.offset >= from_offset and bytes(one.messages) != _NIL
    ]
    if not asking:
        return []
    commands = serializer.decode_commands(group.commands)
    found: list[Parcel] = []
    for outcome in asking:
        command, offset = commands[outcome.offset - group.base_offset], Offset(outcome.offset)
        found.extend(
            Parcel(group.shard, offset, message, command.correlation_id, command.traceparent)
            for message in _MESSAGES.decode(outcome.messages)
        )
    return found


def said(reply: Reply) -> Said:
    """Whether a message is over: its command is logged, or will never be."""
    if reply.outcome in {"accepted", "rejected"}:
        return "taken"
    code = "" if reply.error is None else reply.error.code
    if reply.outcome == "unknown" or (code in PROBLEMS and PROBLEMS[code].retryable):
        return "again"
    return "refused"
