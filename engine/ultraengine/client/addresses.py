"""Where an engine is reached: one address, or those of several copies of which one answers.

The one in use is kept until it fails in a way that another may not: no connection, a broken one,
a copy that does not lead, a process that leaves.  A command goes on with the same id, so it is safe
to ask somebody else while the first one may still have it.
"""

from collections.abc import Sequence
from typing import Final

ELSEWHERE: Final = frozenset(
    {"UNREACHABLE", "OUTCOME_UNKNOWN", "SHARD_UNAVAILABLE", "NOT_LEADER", "DRAINING", "HTTP_502",
     "HTTP_503"}
)  # fmt: skip
"""What another address may not say; the last two without a word of the engine, as of a refused
stream.  OVERLOADED is not among it: the others lead to the same shard."""
LED_ELSEWHERE: Final = frozenset({"NOT_LEADER", "DRAINING"})
"""How a copy that does not lead, or soon does not, refuses single commands of a batch."""


class Addresses:
    """Base addresses without a slash at their ends, in the order in which they are tried."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Raises ValueError without any."""
        if not urls:
            raise ValueError("a client needs at least one address")
        self._urls = [url.rstrip("/") for url in urls]
        self._used = 0
        self._failed: set[str] = set()
        """Addresses that have failed since one worked last."""

    @property
    def url(self) -> str:
        """The one to ask."""
        return self._urls[self._used]

    @property
    def several(self) -> bool:
        """Whether there is anywhere else to go."""
        return len(self._urls) > 1

    def work(self) -> None:
        """An answer came."""
        self._failed.clear()

    def failed(self, url: str, code: str) -> bool:
        """A request to `url` ended so: whether there is another address to try at once."""
        if not self.several or code not in ELSEWHERE:
            return False
        self._failed.add(url)
        if url == self.url:
            self._used = (self._used + 1) % len(self._urls)
        return self.url not in self._failed
