"""W3C Trace Context at the edge, and OpenTelemetry behind the extra ``tracing``.

A traceparent is carried unchanged from the command through log, execution and feed.  Spans
are recorded per request (`edge.py`) or group (`shard/spans.py`), never per command, and only when
a caller's sampled flag is set, so an engine without tracing pays one ``is not None`` per request
and group.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ultraengine.model.ids import Instant
from ultraengine.model.trace import is_traceparent


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

    def _context(self, traceparent: str | None) -> Any:
        if traceparent is None or not is_traceparent(traceparent):
            return None
        _, trace_id, span_id, flags = traceparent.split("-")
        return self._trace.SpanContext(
            trace_id=int(trace_id, 16),
            span_id=int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )

    def _parent(self, traceparent: str | None) -> Any:
        context = self._context(traceparent)
        if context is None:
            return None
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(context))

    def span(
        self,
        name: str,
        *,
        start: Instant,
        end: Instant,
        traceparent: str | None,
        attributes: Mapping[str, str | int | float],
        links: Sequence[str] = (),
    ) -> None:
        """Record a finished span; times are microseconds since the Unix epoch."""
        span = self._tracer.start_span(
            name,
            context=self._parent(traceparent),
            attributes=dict(attributes),
            links=[self._trace.Link(context) for context in map(self._context, links) if context],
            start_time=start * 1_000,
        )
        span.end(end_time=end * 1_000)
