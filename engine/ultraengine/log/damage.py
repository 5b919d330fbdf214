"""What can be wrong with a log directory, said exactly (requirement 001 §2.1).

Every message names the file, the byte position, the frame sequence and the command offset,
and what a person can do.  Nothing is changed on disk before one of these is raised.
"""

from typing import Final

REPAIR: Final = (
    "Nothing was changed. Repair it from a good copy with 'ultra log repair', or give up "
    "everything from here on with 'ultra log truncate', which only shows what is lost until it is "
    "given --keep-broken."
)


class LogError(Exception):
    """Base of everything that keeps a log from being opened or read."""


class LogDamaged(LogError):
    """Bytes that were acknowledged are not there any more: the shard must not serve them."""

    def __init__(
        self,
        reason: str,
        *,
        file: str,
        byte_position: int,
        sequence: int,
        offset: int,
        proved_end: int | None = None,
        advice: str = REPAIR,
    ) -> None:
        self.reason = reason
        self.file = file
        self.byte_position = byte_position
        self.sequence = sequence
        """The frame that should be there."""
        self.offset = offset
        """The next command offset at that point."""
        self.proved_end = proved_end
        """Every frame below was durable once; None when that is not known."""
        self.advice = advice
        proof = "" if proved_end is None else f"; frames below {proved_end} were durable once"
        super().__init__(
            f"{file}: damaged at byte {byte_position}, where frame {sequence} "
            f"(offset {offset}) should be: {reason}{proof}. {advice}"
        )


class LogInUse(LogError):
    """Another process holds the directory."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{file} is locked by another process. Two processes must never write one log: "
            f"stop the other one."
        )


class LogRefused(LogError):
    """The bytes are intact, but they are not for this process.

    Another shard or cluster, a newer format, or a key that is missing or wrong.
    """


class BelowRetention(LogError, LookupError):
    """The asked position was removed by retention."""

    def __init__(self, *, first_sequence: int, first_offset: int) -> None:
        self.first_sequence = first_sequence
        self.first_offset = first_offset
        super().__init__(
            f"the log starts at frame {first_sequence} (offset {first_offset}); "
            f"what lies before was removed by retention"
        )
