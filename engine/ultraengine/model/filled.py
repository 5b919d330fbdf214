"""What a shard's directory was filled with from a backup, before its first start.

It stands beside the log, and before every start it is left where the operator finds it: a report
that is lost with a pod is made again by the next one (`docs/kubernetes/backups.md`).
"""

from typing import Final

import msgspec

PATH: Final = "RESTORED"
"""File of a shard's directory."""
BYTES_MAX: Final = 4_096
"""What Kubernetes keeps of a termination message; longer than any good report."""


class Filled(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A restore that was proved.  Numbers of 64 bits are texts."""

    backup: str
    """Name of the manifest."""
    offset: str
    """First offset that is not there."""
    state_hash: str
    """Of the state that replay has come to."""
    stamped_at: str
    """Time of the last command."""

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)


def decode_filled(content: str | bytes) -> Filled | None:
    """Inverse of `Filled.encode`; None for anything else."""
    try:
        return msgspec.json.decode(content, type=Filled)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
