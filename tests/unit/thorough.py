"""How much of a test belongs to every run, and how much to `make torture`."""

import os
from typing import Final

TORTURE: Final = os.environ.get("ULTRA_TORTURE") == "1"


def examples(every_run: int, torture: int) -> int:
    """How many are drawn."""
    return torture if TORTURE else every_run
