"""Executed commands whose outcomes are not durable yet, by offset.

Kept per group, as the lists that exist anyway: per command an entry of its own would cost
more than the look-ups, which only retries and questions make.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.command import Command
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.outcome import Outcome
from ultraengine.model.policy import LogSerializer
from ultraengine.reply.recorded import Recorded


class _Part(NamedTuple):
    base: int
    commands: Sequence[Command]
    outcomes: Sequence[Outcome]
    """Of the first commands; grows while the group is executed."""
    epoch: Epoch
    time: Instant


class Unrecorded(Mapping[int, Recorded]):
    """Offset -> command and outcome.  Offsets ascend over all groups."""

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self._low = 0
        """Outcomes below this offset are durable."""

    def add(
        self,
        base: int,
        commands: Sequence[Command],
        outcomes: Sequence[Outcome],
        epoch: Epoch,
        time: Instant,
    ) -> None:
        """A group from offset `base` on, of which `outcomes` may still grow."""
        end = self._parts[-1].base + len(self._parts[-1].commands) if self._parts else self._low
        if base < end:
            raise InvariantBroken("groups execute in order", base=base, end=end)
        self._parts.append(_Part(base, commands, outcomes, epoch, time))

    def drop(self, base: int, count: int) -> None:
        """The outcomes of these offsets are durable: they must be the lowest that are held."""
        if not self._parts or base != max(self._parts[0].base, self._low):
            raise InvariantBroken("outcomes become durable in order", base=base, low=self._low)
        part, low = self._parts[0], base + count
        end = part.base + len(part.outcomes)
        if low > end:
            raise InvariantBroken("only executed commands are recorded", low=low, end=end)
        self._low = low
        if low == part.base + len(part.commands):
            self._parts.popleft()

    def get(self, offset: int, default: Recorded | None = None) -> Recorded | None:  # type: ignore[override]  # One kind of default.
        """The command at `offset`, None when its outcome is durable or it was not executed."""
        if offset >= self._low:
            for part in self._parts:
                index = offset - part.base
                if 0 <= index < len(part.outcomes):
                    return Recorded(
                        part.commands[index], part.outcomes[index], part.epoch, part.time
                    )
        return default

    def __getitem__(self, offset: int) -> Recorded:
        found = self.get(offset)
        if found is None:
            raise KeyError(offset)
        return found

    def __iter__(self) -> Iterator[int]:
        for part in self._parts:
            yield from range(max(part.base, self._low), part.base + len(part.outcomes))

    def __len__(self) -> int:
        return sum(
            part.base + len(part.outcomes) - max(part.base, self._low) for part in self._parts
        )


def outcome_drafts(
    serializer: LogSerializer,
    outcomes: Sequence[Outcome],
    base: Offset,
    time: Instant,
    frame_bytes_max: int,
) -> list[FrameDraft]:
    """OUTCOMES drafts of dense outcomes from `base` on, in halves where one would be too large.

    One outcome alone may be larger: it was decided, and has to be recorded.
    """
    payload = serializer.encode_outcomes(outcomes)
    if len(payload) <= frame_bytes_max or len(outcomes) == 1:
        return [FrameDraft(FrameKind.OUTCOMES, base, len(outcomes), time, payload)]
    half = len(outcomes) // 2
    first = outcome_drafts(serializer, outcomes[:half], base, time, frame_bytes_max)
    middle = Offset(base + half)
    return first + outcome_drafts(serializer, outcomes[half:], middle, time, frame_bytes_max)
