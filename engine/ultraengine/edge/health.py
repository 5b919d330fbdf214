"""Whether the process is alive, answered even while the event loop is busy.

The loop beats several times a second; a thread of its own answers ``/healthz`` with the
age of the last beat.  A loop that is late is alive; one that has not come back for
``LOOP_AGE_MAX_S`` hangs, and a restart is the cure.
"""

from typing import Final

from ultraengine.edge.codec import JSON
from ultraengine.edge.problems import Answer, problem_answer
from ultraengine.model.errors import EngineError

BEAT_S: Final = 0.1
"""Seconds between two beats."""
LOOP_AGE_MAX_S: Final = 30.0
"""Age of the last beat from which the process is reported as hanging."""


class Heartbeat:
    """The last beat.  Written by the loop, read by the health thread; one float, so no lock."""

    __slots__ = ("at", "role")

    def __init__(self, now: float, role: str = "") -> None:
        self.at = now
        self.role = role
        """Of one of several copies; empty where there is one."""

    def beat(self, now: float) -> float:
        """The loop is here; returns the seconds since the beat before."""
        gap, self.at = now - self.at, now
        return gap

    def answer(self, now: float) -> Answer:
        """200 with the loop's age in seconds, or 503 when it hangs."""
        age = max(0.0, now - self.at)
        if age > LOOP_AGE_MAX_S:
            return problem_answer(
                EngineError(
                    f"the event loop has not come back for {age:.1f} s", code="SHARD_UNAVAILABLE"
                ),
                (("Cache-Control", "no-store"),),
            )
        body: dict[str, object] = {"alive": True, "loop_age_s": round(age, 3)}
        if self.role:
            body["role"] = self.role
        return Answer(200, JSON.encode(body), JSON.media_type, (("Cache-Control", "no-store"),))


_REASONS: Final = {200: "OK", 503: "Service Unavailable"}


def health_bytes(answer: Answer, *, head: bool) -> bytes:
    """A health answer as an HTTP/1.1 response that ends the connection."""
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    start = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return start if head else start + answer.body
