"""A domain whose recovery waits for the test: while the pipe of `HELD_BY` is there, replaying an
event reads it to its end, which comes when somebody has opened it for writing and closed it."""

import os
from pathlib import Path
from typing import Final

from ultraengine.domains.counter.domain import Added, CounterDomain, Counters
from ultraengine.model.domain import At


class HeldDomain(CounterDomain):
    """Counters."""

    def evolve(self, state: Counters, event: Added, at: At) -> None:
        """Wait, then add."""
        pipe = Path(os.environ["HELD_BY"])
        if pipe.exists():
            pipe.read_bytes()
        super().evolve(state, event, at)


DOMAIN: Final = HeldDomain()
