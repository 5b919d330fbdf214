"""A build decides a running shard's log again, in a process that has none of the shard's files.

The domain is a user's own, in two versions that decide differently from a known command on, and in
one that only looks different.
"""

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.pods.running import PORT, ULTRA, Place, Pod, as_operator
from tests.unit.operator.memory import MemoryCluster, engine
from tests.unit.operator.rounds import conditions, operator, settle

from ultraengine.client import Client
from ultraengine.model.candidate import DIFFERS, OK, UNPROVED, Verdict, decode_verdict
from ultraengine_operator import names
from ultraengine_operator.cluster import Content

TILL = '''
"""A till: a counter that takes at most LIMIT at once."""
from typing import Final
from msgspec.structs import replace
from ultraengine.domains.counter.domain import CounterDomain, decide
from ultraengine.model.domain import Rejection

LIMIT: Final = {limit}
NOTE: Final = "{note}"

def within(state, data, context):
    if data.delta > LIMIT:
        return Rejection("too_much", f"more than is taken at once: {{data.delta}}", "/data/delta")
    return decide(state, data, context)

class Till(CounterDomain):
    commands = tuple(replace(one, decide=within) for one in CounterDomain.commands)

DOMAIN: Final = Till()
'''


def version(place: Path, name: str, *, limit: int, note: str = "") -> Path:
    """A directory with one version of the package `till`."""
    package = place / name / "till"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TILL.format(limit=limit, note=note))
    return package.parent


async def count(pod: Pod, deltas: list[int], name: str) -> None:
    """Add to a counter, one command after the other; refused ones are logged, too."""
    async with Client(f"http://{pod.host}:{PORT}", deadline_s=60.0) as client:
        for number, delta in enumerate(deltas):
            await client.send(
                "counter.add", key="till-1", id=f"{name}-{number}", data={"delta": delta}
            )


class Stand:
    """A shard of one version of the package, a gateway before it, and candidates of others."""

    def __init__(self, place: Place, code: Path, **more: Any) -> None:
        self.place = place
        told: dict[str, Any] = {"ULTRA_DOMAINS": "till:DOMAIN", "PYTHONPATH": code}
        self.shards = [place.shard(number, **told, **more) for number in (0, 1)]
        self.gateway = place.gateway(0, ULTRA_KEYLESS="true", **told)
        self._made = 0

    def start(self) -> None:
        for pod in (*self.shards, self.gateway):
            pod.start()
        for pod in (*self.shards, self.gateway):
            pod.wait_for("/readyz")

    def candidate(
        self, code: Path, shard: int, *, within: float = 60.0, **more: str
    ) -> tuple[int, Verdict | None]:
        """A build beside a shard: its exit code and its verdict."""
        self._made += 1
        own = self.place.path / f"candidate-{self._made}"
        own.mkdir()
        verdict = own / "verdict"
        told = dict(self.shards[shard].environment) | {
            "PYTHONPATH": str(code),
            "ULTRA_DATA": str(own / "data"),
        }
        for name in ("ULTRA_MAP", "ULTRA_ENGINE_UID"):
            del told[name]
        done = subprocess.run(
            [ULTRA, "candidate", "--url", f"http://{self.shards[shard].host}:{PORT}",
             "--within", str(within), "--verdict", verdict],
            env=told | more, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in {OK, DIFFERS, UNPROVED}, done.stdout + done.stderr
        assert json.loads(done.stdout)["verdict"] in {"ok", "refused", "unproved"}
        print(done.stdout, done.stderr)  # noqa: T201 - what is shown of a failure.
        return done.returncode, decode_verdict(verdict.read_bytes())


def busy_shard(stand: Stand) -> int:
    """The shard that has the counter."""
    ends = [as_operator(pod, "GET", "/admin/v1/status")["applied_end"] for pod in stand.shards]
    return ends.index(max(ends))


async def test_a_build_that_decides_alike_is_let_through_and_another_is_refused_at_its_offset(
    place: Place,
) -> None:
    old = version(place.path, "one", limit=100)
    same = version(place.path, "same", limit=100, note="another text")
    other = version(place.path, "other", limit=50)
    stand = Stand(place, old)
    await asyncio.to_thread(stand.start)
    await count(stand.gateway, [1, 2, 3, 40, 60, 4], "a")
    shard = busy_shard(stand)
    code, verdict = await asyncio.to_thread(stand.candidate, same, shard)
    assert (code, verdict is not None and verdict.verdict) == (OK, "ok")
    assert verdict is not None
    assert verdict.compared >= 6
    assert verdict.may_return
    code, refused = await asyncio.to_thread(stand.candidate, other, shard)
    assert code == DIFFERS
    assert refused is not None
    assert (refused.verdict, refused.command_type) == ("refused", "counter.add@1")
    assert "too_much" in refused.decided
    recorded = as_operator(stand.shards[shard], "GET", "/admin/v1/status")["applied_end"]
    assert 0 < refused.offset < recorded
    # Of the shard that has no counter, both builds say the same.
    assert (await asyncio.to_thread(stand.candidate, other, 1 - shard))[0] == OK


async def test_candidates_agree_on_the_state_also_from_a_snapshot_and_a_cut_log(
    place: Place,
) -> None:
    old = version(place.path, "one", limit=100)
    other = version(place.path, "other", limit=50)
    stand = Stand(
        place, old, ULTRA_SNAPSHOTS_KEPT=1, ULTRA_LIMIT_SEGMENT_BYTES=512 * 1024,
        ULTRA_LIMIT_DEDUP_WINDOW_S=1,
    )  # fmt: skip
    await asyncio.to_thread(stand.start)
    await count(stand.gateway, [60, 1], "a")
    shard = busy_shard(stand)
    first = await asyncio.to_thread(stand.candidate, old, shard)
    assert first[0] == OK
    assert first[1] is not None
    again = await asyncio.to_thread(stand.candidate, old, shard)
    assert again[1] is not None
    if again[1].offset == first[1].offset:
        assert again[1].state_hash == first[1].state_hash
    # What is decided anew is what lies behind the state that the log leads on from.
    code, verdict = await asyncio.to_thread(stand.candidate, other, shard)
    assert code == DIFFERS
    assert verdict is not None


async def test_a_candidate_that_gets_no_files_in_time_says_that_nothing_is_known(
    place: Place,
) -> None:
    old = version(place.path, "one", limit=100)
    stand = Stand(place, old)
    await asyncio.to_thread(stand.start)
    shard = busy_shard(stand)
    stand.shards[shard].end(signal.SIGTERM)
    code, verdict = await asyncio.to_thread(stand.candidate, old, shard, within=2.0)
    assert code == UNPROVED
    assert verdict is not None
    assert "in time" in verdict.detail


async def test_a_build_without_the_domain_is_refused_before_it_decides_anything(
    place: Place,
) -> None:
    old = version(place.path, "one", limit=100)
    stand = Stand(place, old)
    await asyncio.to_thread(stand.start)
    await count(stand.gateway, [1], "a")
    shard = busy_shard(stand)
    code, verdict = await asyncio.to_thread(
        stand.candidate, old, shard, ULTRA_DOMAINS="ultraengine.domains.ledger:DOMAIN"
    )
    assert code == DIFFERS
    assert verdict is not None
    assert "counter" in verdict.detail


async def test_the_operator_lets_an_image_through_by_what_its_candidates_say_and_no_other(
    place: Place,
) -> None:
    """Objects are in memory; shards and candidates are processes, asked as the pods would be."""
    code = {
        f"till:{name}": version(place.path, name, limit=limit)
        for name, limit in (("one", 100), ("same", 100), ("other", 50))
    }
    stand = Stand(place, code["till:one"])
    await asyncio.to_thread(stand.start)
    await count(stand.gateway, [1, 60, 2], "a")
    shard = busy_shard(stand)
    cluster = MemoryCluster()
    said: list[tuple[str, int, str]] = []

    def judge(pod: Content) -> Verdict | None:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return None
        image = pod["spec"]["containers"][0]["image"]
        number = int(pod["metadata"]["labels"][names.SHARD])
        exit_code, verdict = stand.candidate(code[image], number)
        assert verdict is not None
        assert verdict.exit_code == exit_code
        said.append((image, number, verdict.verdict))
        return verdict

    cluster.judge = judge
    loop = operator(cluster)
    wish: dict[str, Any] = {"shards": 2, "domains": ["till:DOMAIN"]}
    await engine(cluster, **wish, image="till:one")
    await settle(cluster, loop)
    await engine(cluster, **wish, image="till:same")
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert said == [("till:same", 0, "ok"), ("till:same", 1, "ok")]
    await engine(cluster, **wish, image="till:other")
    await settle(cluster, loop)
    assert conditions(cluster)["Stalled"] == ("True", "CandidateDiffers")
    assert said[-1] == ("till:other", shard, "refused")
    status = cluster.objects["UltraEngine", "default", "shop"]["status"]
    assert status["upgrade"]["shard"] == shard
    stalled = next(one for one in status["conditions"] if one["type"] == "Stalled")
    offset = status["upgrade"]["firstDifference"]
    assert f"offset {offset} (counter.add@1)" in stalled["message"]
    await engine(cluster, **wish, image="till:same")
    await settle(cluster, loop)
    assert conditions(cluster)["Ready"] == ("True", "AsWished")
    assert said[-1] == ("till:other", shard, "refused"), "going back asked a candidate"
