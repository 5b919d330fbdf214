"""What a build says of a shard's log that it has decided again: the gate of an upgrade.

A candidate is a process of the next build beside the shard. It ends with one of three exit codes
and leaves its verdict where the operator finds it (`docs/kubernetes/upgrades.md`).
"""

from typing import Final, Literal

import msgspec

VERDICT_BYTES_MAX: Final = 4_096
"""What Kubernetes keeps of a termination message."""
SHOWN_CHARS_MAX: Final = 800
"""Of each outcome, and of the detail."""

OK: Final = 0
"""Exit code: everything that was compared came out the same."""
DIFFERS: Final = 81
"""Exit code: this build must not take the shard over."""
UNPROVED: Final = 82
"""Exit code: nothing is known, because the log was not had whole or time was up; try again."""

Word = Literal["ok", "refused", "unproved"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a candidate has to say."""

    verdict: Word
    shard: int
    offset: int = 0
    """First offset that was not decided again; of a refusal the one that came out differently."""
    from_offset: int = 0
    """Where deciding began."""
    compared: int = 0
    """Commands whose outcomes were compared."""
    state_hash: str = ""
    """Of the state there, but for remembered ids; candidates that began alike compare it."""
    command_type: str = ""
    recorded: str = ""
    decided: str = ""
    detail: str = ""
    """Why it is not ok, in words."""
    may_return: bool = False
    """Whether both builds write the same formats: then the old one reads what the new one wrote."""
    handlers: dict[str, int] = {}
    """Versions of this build's domains."""

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return {"ok": OK, "refused": DIFFERS, "unproved": UNPROVED}[self.verdict]

    def encode(self) -> bytes:
        """JSON within `VERDICT_BYTES_MAX`."""
        content = msgspec.json.encode(self._cut(SHOWN_CHARS_MAX))
        if len(content) <= VERDICT_BYTES_MAX:
            return content
        # A character is at most six bytes of JSON.
        short = self._cut(SHOWN_CHARS_MAX // 8)
        return msgspec.json.encode(msgspec.structs.replace(short, handlers={}))

    def _cut(self, chars: int) -> "Verdict":
        return msgspec.structs.replace(
            self,
            recorded=self.recorded[:chars],
            decided=self.decided[:chars],
            detail=self.detail[:chars],
        )


def decode_verdict(content: str | bytes) -> Verdict | None:
    """Inverse of `Verdict.encode`; None for anything else."""
    try:
        return msgspec.json.decode(content, type=Verdict)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
