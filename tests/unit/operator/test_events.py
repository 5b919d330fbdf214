"""What is told as Events, how repetitions are counted, and that telling disturbs nothing."""

from typing import Any

from tests.unit.operator.memory import MemoryCluster, SilentShards, engine

from ultraengine_operator.cluster import Refused
from ultraengine_operator.drivers.events import WAITING_MAX, Teller
from ultraengine_operator.drivers.loop import Loop
from ultraengine_operator.events import KNOWN_MAX, NOTE_MAX, SERIES_S, Book, Told, changes
from ultraengine_operator.plan import Settings
from ultraengine_operator.rollout import timestamp_s

NOW = "2026-01-01T00:00:00.000000Z"
ABOUT = {"apiVersion": "ultraengine.io/v1alpha1", "kind": "UltraEngine", "name": "shop",
         "namespace": "default", "uid": "uid-1"}  # fmt: skip
READY = ("Ready", "True", "AsWished")
AWAY = ("Ready", "False", "ShardsNotReady")
SERVING = ("Available", "True", "Serving")
LOST = ("Available", "False", "ShardsNotReady")
STALLED = ("Stalled", "True", "ApplyRefused")


def stand(*found: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [
        {"type": kind, "status": status, "reason": reason, "message": f"{kind} {reason}"}
        for kind, status, reason in found
    ]


def told(before: list[Any], after: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one.type, one.reason) for one in changes(before, after)]


def test_nothing_is_told_of_conditions_that_stay_as_they_are() -> None:
    later = stand(READY, SERVING)
    for one in later:
        one["message"] = "in other words"
    assert told(stand(READY, SERVING), later) == []


def test_losing_shards_is_one_warning_and_getting_them_back_is_none() -> None:
    assert told(stand(READY, SERVING), stand(AWAY, LOST)) == [("Warning", "ShardsNotReady")]
    assert told(stand(AWAY, LOST), stand(READY, SERVING)) == [
        ("Normal", "AsWished"), ("Normal", "Serving"),
    ]  # fmt: skip


def test_a_new_engine_is_no_reason_to_warn() -> None:
    assert told([], stand(AWAY, LOST)) == [("Normal", "ShardsNotReady")]
    gateway = ("Available", "False", "GatewayNotReady")
    assert told([], stand(AWAY, gateway)) == [("Normal", "ShardsNotReady")]


def test_what_stalls_is_a_warning_and_other_conditions_are_told_by_ready() -> None:
    refused = ("Ready", "False", "ApplyRefused")
    assert told(stand(READY), stand(refused, STALLED)) == [("Warning", "ApplyRefused")]
    assert told(["no condition"], stand(("Reconciling", "True", "Creating"))) == []


def test_a_repetition_within_the_series_is_counted_and_a_later_one_is_told_anew() -> None:
    book, one = Book("operator-0"), Told("Serving", "x" * 2_000)
    first = book.post(ABOUT, one, now=NOW, now_s=0.0)
    assert first.first
    manifest = first.manifest
    assert (manifest["regarding"], manifest["type"]) == (ABOUT, "Normal")
    assert (manifest["reason"], manifest["note"]) == ("Serving", "x" * NOTE_MAX)
    assert manifest["reportingInstance"] == "operator-0"
    name = manifest["metadata"]["name"]
    for count in (2, 3):
        again = book.post(ABOUT, one, now="later", now_s=(count - 1) * SERIES_S)
        assert not again.first
        assert again.manifest == {
            "metadata": {"name": name, "namespace": "default"},
            "series": {"count": count, "lastObservedTime": "later"},
        }
    anew = book.post(ABOUT, one, now="much later", now_s=3 * SERIES_S + 1)
    assert anew.first
    assert anew.manifest["metadata"]["name"] != name
    assert book.post({**ABOUT, "uid": "uid-2"}, one, now=NOW, now_s=3 * SERIES_S + 1).first


def test_only_so_many_series_are_remembered() -> None:
    book = Book("operator-0")
    for number in range(KNOWN_MAX + 1):
        assert book.post(ABOUT, Told("Serving", str(number)), now=NOW, now_s=0.0).first
    assert book.post(ABOUT, Told("Serving", "0"), now=NOW, now_s=0.0).first
    assert not book.post(ABOUT, Told("Serving", str(KNOWN_MAX)), now=NOW, now_s=0.0).first


async def test_an_event_is_posted_once_and_then_counted() -> None:
    cluster, now = MemoryCluster(), 1_000.0
    teller = Teller(cluster, "operator-0", clock=lambda: now)
    one = Told("RollingRestart", "restart Pod shop-shard-0-0", "Restart")
    await teller.post(ABOUT, one)
    now += 5.5
    await teller.post(ABOUT, one)
    events = [one for (kind, _, _), one in cluster.objects.items() if kind == "Event"]
    assert [event["series"]["count"] for event in events] == [2]
    assert events[0]["eventTime"] == "1970-01-01T00:16:40.000000Z"
    assert events[0]["series"]["lastObservedTime"] == "1970-01-01T00:16:45.500000Z"
    assert events[0]["action"] == "Restart"


async def test_an_event_that_is_refused_or_finds_no_room_is_let_go() -> None:
    cluster = MemoryCluster()

    def refuse() -> None:
        raise Refused(403, "the namespace is being deleted")

    cluster.before_write = refuse
    teller = Teller(cluster, "operator-0")
    await teller.post(ABOUT, Told("Serving", "x"))
    for number in range(WAITING_MAX + 1):
        teller.tell(ABOUT, Told("Serving", str(number)))
    assert cluster.objects == {}


async def test_the_life_of_an_engine_is_told_once_for_each_change() -> None:
    cluster = MemoryCluster()
    heard: list[tuple[str, str]] = []
    await engine(cluster, shards=1)
    loop = Loop(
        cluster, SilentShards(), Settings(), clock=lambda: timestamp_s(cluster.now),
        told=lambda _about, one: heard.append((one.type, one.reason)),
    )  # fmt: skip
    for _ in range(4):
        await loop.relist()
        await loop.reconcile(("default", "shop"))
        cluster.controllers()
    assert heard == [
        ("Normal", "Creating"), ("Normal", "GatewayNotReady"), ("Normal", "Serving"),
        ("Normal", "AsWished"),
    ]  # fmt: skip
    heard.clear()
    cluster.objects.pop(("Pod", "default", "shop-shard-0-0"))
    cluster.controllers(broken=lambda _image: True)
    await loop.relist()
    await loop.reconcile(("default", "shop"))
    assert heard == [("Warning", "ShardsNotReady")]
