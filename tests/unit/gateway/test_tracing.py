"""Trace context, and spans behind the extra."""

import pytest
from tests.unit.gateway.conftest import START

from ultraengine.gateway.tracing import OpenTelemetry
from ultraengine.model.ids import Instant
from ultraengine.model.trace import is_sampled, is_traceparent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE.upper(),
        TRACE + "-more",
        TRACE[:-1],
        "ff" + TRACE[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_trace_context_is_recognised(text: str) -> None:
    assert not is_traceparent(text)
    assert is_traceparent(TRACE)


def test_the_last_bit_says_whether_the_caller_records() -> None:
    assert is_sampled(TRACE)
    assert is_sampled(TRACE[:-2] + "03")
    assert not is_sampled(TRACE[:-2] + "02")
    assert not is_sampled(None)


def test_a_span_continues_the_trace_of_its_command() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    simple = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(simple.SimpleSpanProcessor(memory))
    telemetry = OpenTelemetry(provider.get_tracer("test"))
    for parent in (TRACE, None, "odd"):
        telemetry.span(
            "batch",
            start=START,
            end=Instant(START + 1_500),
            traceparent=parent,
            attributes={"ultra.commands": 3},
        )
    first, second, third = memory.get_finished_spans()
    assert f"{first.context.trace_id:032x}" == TRACE.split("-")[1]
    assert f"{first.parent.span_id:016x}" == TRACE.split("-")[2]
    assert (first.start_time, first.end_time) == (START * 1_000, (START + 1_500) * 1_000)
    assert dict(first.attributes) == {"ultra.commands": 3}
    assert second.parent is None
    assert third.parent is None
    provider.shutdown()
