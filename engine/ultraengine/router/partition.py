"""One request as parts: what goes to which shard, and back into the order of the request."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


def split(owners: Sequence[S]) -> dict[S, list[int]]:
    """The places of a request by the shard of each, in the order of the request.

    Shards come in the order in which they appear; within a shard the order is kept, which is
    what keeps the commands of one key in order.
    """
    parts: dict[S, list[int]] = {}
    for place, owner in enumerate(owners):
        places = parts.get(owner)
        if places is None:
            parts[owner] = [place]
        else:
            places.append(place)
    return parts
