"""How long to wait before the next attempt: exponential, with full jitter.

Full jitter (a uniform draw between zero and the exponential bound) spreads the clients
of an engine that has just come back better than a fixed or a half-random delay does.
"""

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the waits between attempts, in seconds."""

    base_s: float = 0.05
    """Bound of the first wait; doubles with each further attempt."""
    cap_s: float = 5.0
    """No bound grows beyond this."""

    def delay_s(self, attempts: int, chance: float, retry_after_s: float | None = None) -> float:
        """The wait after `attempts` failures (>= 1); `chance` is uniform in [0, 1).

        ``Retry-After`` is a promise not to come earlier, so the jitter is put on top of it.
        """
        # 2^32 times any sensible base is beyond any cap, and the shift stays small.
        bound = min(self.cap_s, self.base_s * (1 << min(attempts - 1, 32)))
        if retry_after_s is None:
            return bound * chance
        return retry_after_s + self.base_s * chance
