"""What is told about an engine as Events (events.k8s.io): what has changed, not how it stands.

Conditions say how an engine stands; an Event tells of one change of them, or of one thing done.
The same Event within `SERIES_S` is counted in the first one instead of being told again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from ultraengine_operator import names

SERIES_S: Final = 360.0
NOTE_MAX: Final = 1_024
KNOWN_MAX: Final = 4_096
"""Events that are remembered for counting; the oldest is forgotten."""

Manifest = dict[str, Any]


class Told(msgspec.Struct, frozen=True):
    """One thing worth telling."""

    reason: str
    note: str
    action: str = "Reconcile"
    type: Literal["Normal", "Warning"] = "Normal"


def changes(before: Iterable[Any], after: Iterable[Mapping[str, Any]]) -> tuple[Told, ...]:
    """What to tell when conditions have changed; each reason once, as a warning if any is one.

    Warnings: something stalls, or commands were taken and are not any more.
    """
    old = {one.get("type"): one for one in before if isinstance(one, Mapping)}
    found: dict[str, Told] = {}
    for one in after:
        kind, reason, was = one["type"], str(one["reason"]), old.get(one["type"], {})
        if kind not in ("Ready", "Available", "Stalled"):
            continue
        if (was.get("status"), was.get("reason")) == (one["status"], reason):
            continue
        if kind == "Available" and not was and one["status"] != "True":
            continue  # A new engine: nobody was served before.
        lost = kind == "Available" and was.get("status") == "True" and one["status"] != "True"
        if kind == "Stalled" or lost:
            found[reason] = Told(reason, one["message"], type="Warning")
        else:
            found.setdefault(reason, Told(reason, one["message"]))
    return tuple(found.values())


class Posting(msgspec.Struct, frozen=True):
    """An Event to be created, or a later one of its series to be counted in it."""

    manifest: Manifest
    first: bool


class _Series(msgspec.Struct):
    name: str
    count: int
    last_s: float


class Book:
    """Remembers what was told, so that repetitions become one Event with a count."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._series: dict[tuple[str, Told], _Series] = {}

    def post(self, about: Mapping[str, Any], told: Told, *, now: str, now_s: float) -> Posting:
        """The next write for one telling. `now` is RFC 3339 with microseconds."""
        key = (str(about["uid"]), told)
        known = self._series.pop(key, None)
        if known is not None and now_s - known.last_s <= SERIES_S:
            known.count, known.last_s = known.count + 1, now_s
            self._series[key] = known
            series = {"count": known.count, "lastObservedTime": now}
            metadata = {"name": known.name, "namespace": about["namespace"]}
            return Posting({"metadata": metadata, "series": series}, first=False)
        chance = hashlib.blake2b(f"{key}{now}".encode(), digest_size=8).hexdigest()
        name = f"{about['name']}.{chance}"
        self._series[key] = _Series(name, 1, now_s)
        while len(self._series) > KNOWN_MAX:
            del self._series[next(iter(self._series))]
        return Posting(self._manifest(name, about, told, now), first=True)

    def _manifest(self, name: str, about: Mapping[str, Any], told: Told, now: str) -> Manifest:
        labels = {names.ENGINE: about["name"]} if about["kind"] == "UltraEngine" else {}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about["namespace"], "labels": labels},
            "eventTime": now,
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance,
            "action": told.action,
            "reason": told.reason,
            "regarding": dict(about),
            "note": told.note[:NOTE_MAX],
            "type": told.type,
        }
