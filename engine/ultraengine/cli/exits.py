"""Exit codes of `ultra`.  A script may branch on them; `docs/cli.md` has the same table.

`ultra dev` and `ultra serve` end with the codes of `ultraengine.starting.ends.ExitCode`, which
start at 70 where they mean more than these.
"""

import enum
from typing import Final


class Exit(enum.IntEnum):
    """Why a command ended."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    UNREACHABLE = 3
    REJECTED = 4
    REFUSED = 5
    UNKNOWN = 6
    DAMAGED = 71
    IN_USE = 72
    DIFFERS = 81
    UNPROVED = 82
    INTERRUPTED = 130


MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "done, and nothing to report",
    Exit.FINDINGS: "done, but something is not as it should be: the output says what",
    Exit.USAGE: "the command line, a file or a setting is wrong; nothing was done",
    Exit.UNREACHABLE: "no engine answers at the address; nothing was done",
    Exit.REJECTED: "the domain said no; the answer is logged and will stay the same",
    Exit.REFUSED: "the engine did not take the request: permission, shape, overload",
    Exit.UNKNOWN: "sent, but no answer: ask for the outcome or send the same id again",
    Exit.DAMAGED: "stored data is damaged; the output says where",
    Exit.IN_USE: "a running process owns the directory",
    Exit.DIFFERS: "a candidate decides differently, or cannot read the log: it must not take over",
    Exit.UNPROVED: "a candidate did not have the log whole in time: nothing is known, try again",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


def epilog() -> str:
    """The table for ``--help``."""
    lines = [f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()]
    return "exit codes:\n" + "\n".join(lines)


class CommandFailed(Exception):
    """Ends a command: what is wrong, what to do, and the exit code."""

    def __init__(self, message: str, *, advice: str = "", code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.code = code
