"""`spec.restore`: what the operator lets a pod run before its engine, on volumes that are
directories, with a real S3 server; killed at any point, begun again, and done once."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.pods.running import PORT, ULTRA, Place, Pod, as_operator, until
from tests.e2e.pods.test_operator_backs_up import (
    BOOKS,
    STORE_KEYS,
    book,
    gateway_of,
    served,
    transfers,
)
from tests.e2e.pods.test_slots_move_under_load import Mover
from tests.servers.s3 import S3Server

from ultraengine.client import Client
from ultraengine.model.filled import decode_filled
from ultraengine_operator.api.decode import engine_of
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Settings, view_of
from ultraengine_operator.specs import engine

NEW_UID = "6d0f1bd2-8d2c-4b5e-9a55-ba9876543210"
OTHER_UID = "0f1bd26d-2c8d-5e4b-559a-109876543ba5"


def arguments(place: Place, volume: Path, shard: int, **restore: Any) -> list[str]:
    """What the container is told that fills a volume, with the paths of this machine."""
    content = {
        "metadata": {"name": "again", "namespace": "default", "uid": NEW_UID},
        "spec": {"image": "ultraengine:1", "shards": 2, "restore": restore},
    }
    view, problems = view_of(engine_of(content), Observed(), Settings())
    assert problems == ()
    template = engine.stateful_set(view, shard)["spec"]["template"]
    (container,) = template["spec"]["initContainers"]
    here = {
        "/data": str(volume), "/etc/ultra/map/map.json": str(place.map),
        "/dev/termination-log": str(place.path / f"report-{shard}"),
    }  # fmt: skip
    return [here.get(one, one) for one in container["args"]]


def start(told: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [ULTRA, *told], env={**os.environ, **STORE_KEYS}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def begun(volume: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until something is written, or the process has ended."""
    until(lambda: any(volume.glob(".*")) or process.poll() is not None)


def backed_up(shards: list[Pod]) -> list[Any]:
    return [as_operator(pod, "POST", "/admin/v1/backup", {})["result"] for pod in shards]


@pytest.mark.timeout(600)
async def test_a_new_engine_has_what_was_backed_up_however_often_its_filling_is_killed(
    place: Place, s3_server: S3Server
) -> None:
    location, shards, gateway = served(place, s3_server)
    homes = await book(gateway, 0, 20)
    first = await asyncio.to_thread(backed_up, shards)
    await book(gateway, 20, 40)
    last = await asyncio.to_thread(backed_up, shards)

    # Shard 0 up to its first backup, shard 1 with everything.
    offsets = [str(first[0]["offset_end"])]
    restored: list[Pod] = []
    for shard in range(2):
        volume = place.path / f"again-{shard}"
        told = arguments(place, volume, shard, location=location, offsets=offsets)
        killed = start(told)
        await asyncio.to_thread(begun, volume, killed)
        killed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(ended, killed)
        # It may have been faster than the signal; half of it has no name.
        is_whole = (volume / f"shard-{shard:04d}").exists()
        code, said = await asyncio.to_thread(ended, start(told))
        assert (code, "is there" in said, "state hash" in said) == (0, is_whole, not is_whole), said
        code, said = await asyncio.to_thread(ended, start(told))
        assert (code, "is there" in said) == (0, True), said
        report = decode_filled((place.path / f"report-{shard}").read_bytes())
        assert report is not None
        assert report.offset == (offsets[0] if shard == 0 else str(last[1]["offset_end"]))
        new = {"ULTRA_DATA": volume, "ULTRA_ENGINE_UID": NEW_UID}
        pod = place.shard(shard, host=150 + shard, **new)
        pod.start()
        await asyncio.to_thread(pod.wait_for, "/readyz")
        restored.append(pod)

    again = gateway_of(place, 5, ULTRA_SHARD_ADDRESS=f"http://{place.net}.15{{shard}}:{PORT}")
    for name, shard in homes.items():
        assert transfers(again, name) == sorted(f"t-{number}" for number in range((20, 40)[shard]))
    async with Client(f"http://{again.host}:{PORT}", deadline_s=None) as client:
        for name in BOOKS:
            one = {"id": "t-7", "from": "alice", "to": "shop", "amount": "1"}
            reply = await client.send(
                "ledger.create_transfers", key=name, id="t-7", data={"transfers": [one]}
            )
            assert reply.duplicate

    # The volume is the new engine's, and nobody else's.
    stranger = place.shard(
        0, host=170, ULTRA_DATA=place.path / "again-0", ULTRA_ENGINE_UID=OTHER_UID
    )
    await asyncio.to_thread(restored[0].end, signal.SIGTERM)
    stranger.start()
    assert await asyncio.to_thread(stranger.ended) == 75


@pytest.mark.timeout(600)
async def test_a_shard_whose_slots_have_moved_is_not_restored_under_a_map_that_does_not_know(
    place: Place, s3_server: S3Server
) -> None:
    location, shards, gateway = served(place, s3_server)
    await book(gateway, 0, 5)
    published = place.map.read_bytes()
    code, said = await Mover(place).run("move", "7", "--to", "1")
    assert code == 0, said
    place.map.write_bytes(published)
    await asyncio.to_thread(backed_up, shards)
    for shard, owned in enumerate(["0-6, 8-2047", "7-7, 2048-4095"]):
        volume = place.path / f"again-{shard}"
        told = arguments(place, volume, shard, location=location)
        code, said = await asyncio.to_thread(ended, start(told))
        assert (code != 0, f"shard {shard} owns slots {owned}, and the map" in said) == (
            True, True,
        ), said  # fmt: skip
        assert list(volume.iterdir()) == []
