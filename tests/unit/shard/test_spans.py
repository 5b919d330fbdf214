"""Spans of groups: one for a flush and one for an execution, in the traces of those who ask."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.unit.shard.test_shard import SHARD, Rig

from ultraengine.gateway.tracing import OpenTelemetry
from ultraengine.shard.driver import UNITS_PER_TURN
from ultraengine.shard.spans import LINKS_MAX, GroupSpans
from ultraengine_adapters.local.clock import SystemClock

PARENT = "00f067aa0ba902b7"


def trace(number: int, flags: str = "01") -> str:
    return f"00-{number:032x}-{PARENT}-{flags}"


class Traced(NamedTuple):
    rig: Rig
    memory: Any

    def spans(self) -> dict[str, Any]:
        """The finished spans by name; each name once."""
        found = {span.name: span for span in self.memory.get_finished_spans()}
        assert len(found) == len(self.memory.get_finished_spans())
        return found


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory_export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    memory = memory_export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    rig = Rig(tmp_path)
    await rig.start()
    telemetry = OpenTelemetry(provider.get_tracer("test"))
    rig.shard.spans = GroupSpans(telemetry, SystemClock(), SHARD)
    yield Traced(rig, memory)
    await rig.shard.stop()
    provider.shutdown()


def linked(span: Any) -> list[int]:
    return [link.context.trace_id for link in span.links]


async def test_a_group_has_one_span_for_its_flush_and_one_for_its_execution(traced: Traced) -> None:
    rig = traced.rig
    replies = await rig.send(
        rig.admit("a", traceparent=trace(7, "00")),
        rig.admit("b", traceparent=trace(8)),
        rig.admit("c"),
        rig.admit("d", traceparent=trace(9)),
        rig.admit("e", traceparent=trace(8)),
    )
    spans = traced.spans()
    assert sorted(spans) == ["log.flush", "shard.execute"]
    for span in spans.values():
        assert span.context.trace_id == 8
        assert f"{span.parent.span_id:016x}" == PARENT
        assert linked(span) == [9]
        assert 0 < span.start_time <= span.end_time
        facts = dict(span.attributes)
        assert facts["ultra.shard"] == SHARD
        assert (facts["ultra.offset"], facts["ultra.commands"]) == (replies[0].offset, 5)
    assert spans["log.flush"].attributes["ultra.bytes"] > 128
    assert spans["log.flush"].attributes["ultra.sync_us"] >= 0
    assert spans["shard.execute"].attributes["ultra.busy_us"] >= 0


async def test_an_execution_in_slices_is_one_span(traced: Traced) -> None:
    rig = traced.rig
    count = UNITS_PER_TURN + 20
    await rig.send(*(rig.admit(f"n{n}", traceparent=trace(n + 1)) for n in range(count)))
    execute = traced.spans()["shard.execute"]
    assert execute.attributes["ultra.commands"] == count
    assert linked(execute) == list(range(2, 2 + LINKS_MAX))


async def test_a_group_without_a_sampled_command_has_no_span(traced: Traced) -> None:
    rig = traced.rig
    await rig.send(rig.admit("a"), rig.admit("b", traceparent=trace(5, "00")))
    assert traced.spans() == {}


async def test_without_telemetry_nothing_is_looked_at(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    (reply,) = await rig.send(rig.admit("a", traceparent=trace(5)))
    assert reply.outcome == "accepted"
    assert rig.shard.spans._telemetry is None
    await rig.shard.stop()
