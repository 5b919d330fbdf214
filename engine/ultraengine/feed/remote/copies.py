"""Whom of several copies to ask for a feed, and whose word is final.

    follower   has the same groups, and costs the leader nothing: asked first
    unknown    has not said what it is: asked next
    leader     asked last; what it says of its log is so, while a copy may just lack something

Pure.  Where there is one address nothing is chosen.
"""

from collections.abc import Mapping, Sequence
from typing import Final

FOLLOWER: Final = "follower"
LEADER: Final = "leader"
_RANKS: Final = {FOLLOWER: 0, LEADER: 2}


def in_turn(urls: Sequence[str], roles: Mapping[str, str], chance: float) -> list[str]:
    """Every address once, in the order in which they are tried; `chance`, from 0 to 1, says with
    which one of equals to begin, so that not all consumers ask the same copy."""
    at = int(chance * len(urls)) % len(urls)
    turned = [*urls[at:], *urls[:at]]
    return sorted(turned, key=lambda url: _RANKS.get(roles.get(url, ""), 1))


def is_final(urls: Sequence[str], role: str) -> bool:
    """Whether a refusal by this address that is not for later is one for good."""
    return len(urls) == 1 or role == LEADER
