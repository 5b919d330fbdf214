"""Quantities and durations as Kubernetes writes them, as exact numbers."""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGTPE]i?|Ki|m)?")
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3_600),
    "d": Decimal(86_400),
}


def quantity(text: str) -> Decimal:
    """The number that a quantity such as ``10Gi`` or ``500m`` stands for.  Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity such as 10Gi or 500m")
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix == "m":
        return number / 1_000
    base = 1_024 if suffix.endswith("i") else 1_000
    power = " kMGTPE".index(suffix[0].replace("K", "k")) if suffix else 0
    return number * Decimal(base) ** power if power else number


def seconds(text: str) -> str:
    """A duration such as ``1h30m`` in seconds, as the engine's settings take it."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 30s or 1h30m")
    total = sum((Decimal(one[1]) * _SECONDS[one[2]] for one in _PART.finditer(text)), Decimal(0))
    return format(total.normalize(), "f")
