"""Holds the operator's Lease, or waits for it with everything else warm."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from ultraengine_operator.cluster import KINDS, Cluster, Refused
from ultraengine_operator.election import (
    RENEW_DEADLINE_S,
    RETRY_S,
    Seen,
    holder_of,
    may_take,
    released,
    taken,
    watch,
)

_log = structlog.get_logger("ultraengine.operator")
LEASE = KINDS["Lease"]


class Elector:
    """Leads while the last renewal that was confirmed is younger than the renew deadline."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._namespace, self._name, self._identity = namespace, name, identity
        self._monotonic = monotonic
        self._seen: Seen | None = None
        self._renewed_s: float | None = None
        self.looked_s = monotonic()
        """When the Lease was looked at last."""

    def leading(self) -> bool:
        """Whether to act. Asked before each write: a renewal that hangs ends it as well."""
        renewed_s = self._renewed_s
        return renewed_s is not None and self._monotonic() - renewed_s < RENEW_DEADLINE_S

    async def step(self) -> None:
        """Look at the Lease once, and take or renew it where that is ours to do."""
        # What is confirmed was true when the request left, not when its answer came.
        now_s = self._monotonic()
        lease = await self._cluster.get(LEASE, self._namespace, self._name)
        if lease is None:
            empty: dict[str, Any] = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.name,
                "metadata": {"name": self._name, "namespace": self._namespace},
            }
            await self._cluster.create(LEASE, taken(empty, self._identity, _now()))
            self._renewed_s = now_s
            return
        self._seen = watch(self._seen, lease, now_s)
        if may_take(lease, self._seen, self._identity, now_s):
            await self._cluster.replace(LEASE, taken(lease, self._identity, _now()))
            self._renewed_s = now_s
        else:
            self._renewed_s = None
        self.looked_s = now_s

    async def run(self, changed: Callable[[bool], None]) -> None:
        """Step for ever; `changed` hears of each beginning and end."""
        led = False
        while True:
            try:
                async with asyncio.timeout(RENEW_DEADLINE_S):
                    await self.step()
            except (Refused, TimeoutError) as error:
                _log.warning("lease.not_renewed", error=str(error) or type(error).__name__)
            if self.leading() != led:
                led = not led
                _log.info("leading.began" if led else "leading.ended", identity=self._identity)
                changed(led)
            await asyncio.sleep(RETRY_S)

    async def release(self) -> None:
        """Let the next operator take over at once."""
        if not self.leading():
            return
        self._renewed_s = None
        with contextlib.suppress(Refused):
            lease = await self._cluster.get(LEASE, self._namespace, self._name)
            if lease is not None and holder_of(lease) == self._identity:
                await self._cluster.replace(LEASE, released(lease, _now()))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
