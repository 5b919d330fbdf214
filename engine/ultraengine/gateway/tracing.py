"""W3C Trace Context at the edge, and OpenTelemetry behind the extra ``tracing``.

A traceparent is carried unchanged from the command through log, execution and feed.  Spans
are recorded per request or group, never per command, and only when the caller's sampled
flag is set, so an engine without tracing pays one ``is not None`` per command.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from ultraengine.model.ids import Instant

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def is_traceparent(text: str) -> bool:
    """Whether `text` is a traceparent of version 00 (later versions may be longer: refused)."""
    return len(text) == 55 and _TRACEPARENT.fullmatch(text) is not None


def is_sampled(traceparent: str | None) -> bool:
    """Whether the caller records this trace."""
    return traceparent is not None and int(traceparent[-2:], 16) & 1 == 1


class OpenTelemetry:
    """`ports.Telemetry` over an OpenTelemetry tracer.

    The tracer's span processor must queue (``BatchSpanProcessor``), so that recording never
    blocks.  Raises ImportError without the extra ``tracing``.
    """

    def __init__(self, tracer: Any) -> None:
        # Imported here, because the extra may be missing and only this class needs it.
        from opentelemetry import trace  # noqa: PLC0415

        self._trace = trace
        self._tracer = tracer

    def _parent(self, traceparent: str | None) -> Any:
        if traceparent is None or not is_traceparent(traceparent):
            return None
        _, trace_id, span_id, flags = traceparent.split("-")
        context = self._trace.SpanContext(
            trace_id=int(trace_id, 16),
            span_id=int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(context))

    def span(
        self,
        name: str,
        *,
        start: Instant,
        end: Instant,
        traceparent: str | None,
        attributes: Mapping[str, str | int | float],
    ) -> None:
        """Record a finished span; times are microseconds since the Unix epoch."""
        span = self._tracer.start_span(
            name,
            context=self._parent(traceparent),
            attributes=dict(attributes),
            start_time=start * 1_000,
        )
        span.end(end_time=end * 1_000)
