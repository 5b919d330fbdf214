"""The compiled parts of the engine: which there are, and how to do without them.

Each has its reference in plain Python beside it and does the same (ADR 0010).  They are absent
where no compiler was at hand, and left out when the environment says ``ULTRA_PURE=1``.
"""

import importlib
import os
import sys
from typing import Final

PARTS: Final = (
    "ultraengine.execution._packed",
    "ultraengine.domains.ledger._lane",
    "ultraengine.projection.postgres._rows",
)


def leave_out() -> None:
    """Make the compiled parts look absent to whoever imports them from here on."""
    for name in PARTS:
        sys.modules[name] = None  # type: ignore[assignment]  # How an import is told to fail.


def absent() -> list[str]:
    """Names of the compiled parts that this process does without."""
    missing = []
    for name in PARTS:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


if os.environ.get("ULTRA_PURE") == "1":
    leave_out()
