"""Observe, plan, apply, report: one engine at a time, whenever anything of it has changed.

Level-triggered: a key in the queue says only that something may be different. A refused write is
tried again with a growing, capped delay; one that would be refused again becomes Stalled.
The loop acts only while `leading` is true, and asks before every write.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from ultraengine_operator import names
from ultraengine_operator.actions import (
    Action,
    Apply,
    Create,
    Delete,
    ExpandClaim,
    IssueCertificate,
    LabelPod,
    MakeAuthority,
    MakeKey,
    RestartPod,
    Scale,
    SealMap,
    SetFinalizer,
    TurnAuthority,
    describe,
    ref_of,
)
from ultraengine_operator.answers import seen_shard
from ultraengine_operator.api.decode import engine_of, metadata_of
from ultraengine_operator.api.types import Metadata, UltraEngine
from ultraengine_operator.budget import Fleet, Standing
from ultraengine_operator.cache import Cache, Key, key_of
from ultraengine_operator.cluster import (
    KINDS,
    MADE_BY_PEOPLE,
    WATCHED,
    Cluster,
    Content,
    Refused,
    Shards,
)
from ultraengine_operator.copies import serving
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.drivers.rebalancer import Rebalancer
from ultraengine_operator.drivers.secrets import look_for_secrets
from ultraengine_operator.drivers.signing import Signer
from ultraengine_operator.drivers.snapshots import Snapshots
from ultraengine_operator.events import Told, changes
from ultraengine_operator.observed import Observed, Ref, SeenShard, digest, observed_of
from ultraengine_operator.plan import Plan, Settings, Settled, plan
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rebalance import judged
from ultraengine_operator.report import Status, engine_status, shard_status, unreadable_status
from ultraengine_operator.rollout import unready

BACKOFF_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
ASKED_MAX: Final = 32
"""Shards that are asked at the same time."""
SILENT_S: Final = 5.0
"""After this a shard is asked again that is ready and was never heard: a Service may be younger."""
HEARD_OF: Final = (
    Apply, Create, MakeKey, MakeAuthority, TurnAuthority, IssueCertificate, LabelPod, Scale,
    SealMap, SetFinalizer,
)  # fmt: skip
"""Actions whose outcome is in their answer."""
_log = structlog.get_logger("ultraengine.operator")


class NotLeading(Exception):
    """Another operator leads; nothing more may be written."""


class Loop:
    """All engines of one operator."""

    def __init__(
        self,
        cluster: Cluster,
        shards: Shards,
        settings: Settings,
        *,
        selector: str = "",
        changing_max: int = 1,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        told: Callable[[Content, Told], None] = lambda _about, _told: None,
        moves: Rebalancer | None = None,
        backups: Backups | None = None,
    ) -> None:
        """`moves`: who moves slots; without it none is moved. `backups`: who has shards back
        themselves up; without it Snapshots are let alone."""
        self.cache = Cache()
        self._cluster = cluster
        self._shards = shards
        self._signer = Signer(cluster)
        self._settings = settings
        self._selector = selector
        self._changing_max = changing_max
        self._leading = leading
        self._clock = clock
        self._told = told
        self._moves = moves
        self._snapshots: Snapshots | None = None
        if backups is not None:
            self._snapshots = Snapshots(cluster, self.cache, backups, self._write_status, told)
        self._settled: dict[Key, dict[Ref, Settled]] = {}
        self._standings: dict[str, Standing] = {}

    async def relist(self) -> set[Key]:
        """Look at everything; the engines whose world has changed."""
        changed: set[Key] = set()
        for kind in WATCHED:
            mine = "" if kind.name in MADE_BY_PEOPLE else names.ENGINE
            mine = self._selector if kind.name == "UltraEngine" else mine
            changed |= self.cache.relist(kind.name, await self._cluster.list(kind, mine))
        return changed

    def is_ours(self, content: Content) -> bool:
        """Whether an UltraEngine has the labels of this operator's selector."""
        found = content["metadata"].get("labels") or {}
        pairs = (one.strip().partition("=") for one in self._selector.split(",") if one.strip())
        return all(key in found and value in ("", found[key]) for key, _, value in pairs)

    def hear(self, what: str, content: Content) -> Key | None:
        """Take in an event of a watch; the engine whose world it changed.

        An UltraEngine that is not ours any more is as one that was deleted: another operator acts
        on it from now on.
        """
        is_theirs = content["kind"] == "UltraEngine" and not self.is_ours(content)
        if what == "DELETED" or is_theirs:
            return self.cache.drop(content)
        return self.cache.put(content)

    def engines(self) -> tuple[Key, ...]:
        """Every engine there is."""
        return tuple(key for key in self.cache.known() if self.cache.engine(key) is not None)

    def concerned(self) -> tuple[Key, ...]:
        """Every engine that is there, or that a Snapshot names."""
        known = self.cache.known()
        return tuple(key for key in known if self.cache.engine(key) or self.cache.snapshots(key))

    async def reconcile(self, key: Key) -> float | None:
        """Bring one engine a step nearer; seconds until it is to be looked at without cause.

        Raises `Refused` when the API server is to be asked again, `NotLeading` when not by us.
        """
        content = self.cache.engine(key)
        name = f"{key[0]}/{key[1]}"
        if content is None:
            self._standings.pop(name, None)
            self._settled.pop(key, None)
            if self._moves is not None:
                self._moves.forget(key)
            if self._snapshots is not None and self._leading():
                await self._snapshots.look_at_orphans(key, self._now())
            return None
        await look_for_secrets(self._cluster, self.cache, key, content)
        observed = self._observed(key, content)
        try:
            engine = engine_of(content)
        except Problem as problem:
            await self._unreadable(content, problem)
            if self._snapshots is not None and self._leading():
                await self._snapshots.refuse(key, problem, self._now())
            self._standings[name] = Standing.QUIET
            return None
        made = self._plan(key, engine, observed)
        if self._may_act(engine, made):
            done = await self._act(key, engine, made)
            observed = self._observed(key, content)
            made = self._after(key, done, observed)
        made = self._with_moves(key, engine, made)
        silent = await self._report(key, engine, made, observed)
        if self._snapshots is not None and self._leading():
            await self._snapshots.look(key, engine, made, observed, self._now())
        if made.look_again_s is None and silent:
            return SILENT_S
        return made.look_again_s

    def _observed(self, key: Key, content: Content) -> Observed:
        seen = observed_of(self.cache.children(key))
        count = content["spec"].get("shards", 1)
        emptied = () if self._moves is None else self._moves.emptied(key, count)
        said = () if self._snapshots is None else self._snapshots.told(key)
        return msgspec.structs.replace(seen, emptied=emptied, backups=said)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _with_moves(self, key: Key, engine: UltraEngine, made: Plan) -> Plan:
        """Tell who moves slots how they are wished now, and take in how far it is."""
        if self._moves is None:
            return made
        is_open = engine.spec.reconciliation == "Active" and self._leading()
        self._moves.want(key, made.wish if is_open else None)
        if made.wish is None:
            return made
        mode, told = engine.spec.reconciliation, self._moves.told(key)
        found = judged(made.wish, told, mode, self._clock())
        problems = made.problems if found.problem is None else (*made.problems, found.problem)
        return msgspec.structs.replace(made, rebalancing=found, problems=problems)

    def _plan(self, key: Key, engine: UltraEngine, observed: Observed) -> Plan:
        made = plan(
            engine,
            observed,
            settled=self._settled.setdefault(key, {}),
            fleet=self._fleet(),
            settings=self._settings,
            now_s=self._clock(),
        )
        self._standings[f"{key[0]}/{key[1]}"] = made.standing
        return made

    def _after(self, key: Key, done: Plan, observed: Observed) -> Plan:
        """What is to be reported once the actions are done.

        The answers to the writes are in the cache, so no event will tell of them again: what is
        seen now is planned for again, and what that asks for is done at once.  Where something
        was deleted, its going is still to be heard of.
        """
        content = self.cache.engine(key)
        heard_of = all(isinstance(one, HEARD_OF) for one in done.actions)
        if not done.actions or done.problems or done.deleting or not heard_of or content is None:
            return done
        again = self._plan(key, engine_of(content), observed)
        return msgspec.structs.replace(again, look_again_s=0.0) if again.actions else again

    def _may_act(self, engine: UltraEngine, made: Plan) -> bool:
        if engine.spec.reconciliation == "Active":
            return True
        # A paused object can be let go, which writes nothing but its own metadata.
        return made.deleting and made.actions == (SetFinalizer(present=False),)

    def _fleet(self) -> Fleet:
        there = [f"{namespace}/{engine}" for namespace, engine in self.engines()]
        unseen = sum(name not in self._standings for name in there)
        return Fleet(dict(self._standings), unseen, self._changing_max)

    async def _act(self, key: Key, engine: UltraEngine, made: Plan) -> Plan:
        """Carry the actions out; the plan with the problem that ended it early, if any."""
        for action in made.actions:
            self._may_write()
            try:
                await self._do(key, engine, action)
            except Refused as refused:
                if not refused.permanent:
                    raise
                problem = Problem(
                    Reason.APPLY_REFUSED, f"{describe(action)}: {refused.message}", holds=False
                )
                return _with_problem(made, problem)
            _log.info("action.done", engine=f"{key[0]}/{key[1]}", action=describe(action))
        return made

    def _may_write(self) -> None:
        if not self._leading():
            raise NotLeading

    async def _do(self, key: Key, engine: UltraEngine, action: Action) -> None:
        namespace = key[0]
        match action:
            case Apply(manifest, rendered):
                kind, ref = KINDS[manifest["kind"]], ref_of(manifest)
                live = await self._cluster.apply(kind, manifest, manager=names.MANAGER)
                self.cache.put(live)
                seen = digest(self.cache.children(key).get(ref, live))
                self._settled[key][ref] = Settled(rendered, seen)
            case Create(manifest):
                await self._create(key, manifest)
            case MakeKey(manifest):
                content = {**manifest, "stringData": {names.KEY_FILE: secrets.token_urlsafe(32)}}
                await self._create(key, content)
            case MakeAuthority() | TurnAuthority() | IssueCertificate() | LabelPod():
                await self._do_for_copies(namespace, action)
            case SealMap(name, version, content):
                await self._seal(namespace, name, version, content)
            case Delete(ref, uid):
                await self._cluster.delete(KINDS[ref.kind], namespace, ref.name, uid=uid)
                self._told(_about(engine.metadata), Told("Deleting", describe(action), "Delete"))
            case RestartPod(name, uid):
                await self._cluster.delete(KINDS["Pod"], namespace, name, uid=uid)
                told = Told(Reason.ROLLING_RESTART, describe(action), "Restart")
                self._told(_about(engine.metadata), told)
            case Scale(name, replicas):
                await self._merge("Deployment", namespace, name, {"replicas": replicas})
            case ExpandClaim(name, size):
                wish = {"resources": {"requests": {"storage": size}}}
                await self._merge("PersistentVolumeClaim", namespace, name, wish)
            case SetFinalizer(present):
                await self._set_finalizer(engine.metadata, present=present)

    async def _do_for_copies(
        self, namespace: str, action: MakeAuthority | TurnAuthority | IssueCertificate | LabelPod
    ) -> None:
        if isinstance(action, LabelPod):
            # The uid refuses a pod that has taken its place meanwhile.
            wish = {"metadata": {"uid": action.uid, "labels": {names.ROLE: action.role}}}
            self.cache.put(await self._cluster.merge(KINDS["Pod"], namespace, action.name, wish))
            return
        secret = await self._signer.do(namespace, action, self._clock())
        if secret is not None:
            self.cache.put(secret)

    async def _merge(self, kind: str, namespace: str, name: str, spec: Content) -> None:
        self.cache.put(await self._cluster.merge(KINDS[kind], namespace, name, {"spec": spec}))

    async def _create(self, key: Key, manifest: Content) -> None:
        kind, name = KINDS[manifest["kind"]], manifest["metadata"]["name"]
        try:
            self.cache.put(await self._cluster.create(kind, manifest))
        except Refused as refused:
            if refused.status != 409:
                raise
            # It stays as it is. Unless it is seen from now on, it would be made again and again.
            found = await self._cluster.get(kind, key[0], name)
            if found is None:
                raise Refused(0, f"{kind.name} {name} is there and is not") from refused
            if key_of(found) != key:
                detail = f"there is another one, which is not labelled {names.ENGINE}={key[1]}"
                raise Refused(409, detail) from refused
            self.cache.put(found)

    async def _seal(self, namespace: str, name: str, version: str, content: str) -> None:
        wish = {"metadata": {"resourceVersion": version}, "data": {names.MAP_KEY: content}}
        try:
            self.cache.put(await self._cluster.merge(KINDS["ConfigMap"], namespace, name, wish))
        except Refused as refused:
            if refused.status != 409:
                raise
            # Somebody has written it meanwhile: the next plan goes by what is there now.
            found = await self._cluster.get(KINDS["ConfigMap"], namespace, name)
            if found is not None:
                self.cache.put(found)

    async def _set_finalizer(self, metadata: Metadata, *, present: bool) -> None:
        applied: Content = {
            "apiVersion": names.API_VERSION,
            "kind": "UltraEngine",
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
        }
        if present:
            applied["metadata"]["finalizers"] = [names.FINALIZER]
        # The uid refuses an object that was made anew under the same name meanwhile.
        applied["metadata"]["uid"] = metadata.uid
        kind = KINDS["UltraEngine"]
        self.cache.put(await self._cluster.apply(kind, applied, manager=names.MANAGER))

    async def _unreadable(self, content: Content, problem: Problem) -> None:
        metadata = metadata_of(content)
        self._may_write()
        if metadata.deletion_timestamp is not None:
            if names.FINALIZER in metadata.finalizers:
                await self._set_finalizer(metadata, present=False)
            return
        before = content.get("status") or {}
        status = unreadable_status(metadata, problem, before=before, now=self._now())
        await self._write_status("UltraEngine", content, status)
        self._tell(metadata, before, status)

    async def _report(self, key: Key, engine: UltraEngine, made: Plan, observed: Observed) -> bool:
        """Write what has changed; whether a shard is ready and has never answered."""
        content = self.cache.engine(key)
        if content is None or made.actions == (SetFinalizer(present=False),):
            return False
        silent = False
        now = self._now()
        objects = sorted(self.cache.shard_objects(key).items())
        ready = [
            shard
            for shard in (int(one["spec"]["shard"]) for _, one in objects)
            if not unready(observed, (shard,))
        ]
        pods = {one.shard: serving(observed, one.shard) for one in observed.records}
        leaders = {shard: pod.name for shard, pod in pods.items() if pod is not None}
        answers = await self._ask_all(key, ready, leaders)
        for name, one in objects:
            shard = int(one["spec"]["shard"])
            is_ready = shard in answers
            status = shard_status(
                shard, made, observed, answers.get(shard),
                generation=one["metadata"].get("generation", 1),
                before=one.get("status") or {}, now=now,
            )  # fmt: skip
            silent = silent or (is_ready and "epoch" not in status)
            await self._write_status("Shard", self.cache.shard_objects(key).get(name, one), status)
        before = content.get("status") or {}
        status = engine_status(engine, made, observed, before=before, now=now)
        await self._write_status("UltraEngine", content, status)
        self._tell(engine.metadata, before, status)
        return silent

    def _tell(self, metadata: Metadata, before: Status, after: Status) -> None:
        """Once it is written: a change that is written again is told again otherwise."""
        for one in changes(before.get("conditions") or (), after["conditions"]):
            self._told(_about(metadata), one)

    async def _ask_all(
        self, key: Key, shards: Sequence[int], leaders: Mapping[int, str]
    ) -> dict[int, SeenShard | None]:
        """What each says, of several copies the one that leads; None of those that are silent."""
        room = asyncio.Semaphore(ASKED_MAX)

        async def ask(shard: int) -> SeenShard | None:
            async with room:
                return await self._ask(key, shard, leaders.get(shard))

        answers = await asyncio.gather(*(ask(shard) for shard in shards))
        return dict(zip(shards, answers, strict=True))

    async def _ask(self, key: Key, shard: int, pod: str | None) -> SeenShard | None:
        found = await self._shards.ask(key[0], key[1], shard, pod)
        return None if found is None else seen_shard(shard, found)

    async def _write_status(self, kind: str, content: Content, status: dict[str, Any]) -> None:
        if content.get("status") == status:
            return
        self._may_write()
        metadata = content["metadata"]
        applied: Content = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": status,
        }
        if kind == "Snapshot":
            # One of the same name that was made meanwhile is another request, and this is not its
            # answer. Of a status the API server compares no uid.
            applied["metadata"]["resourceVersion"] = metadata["resourceVersion"]
        try:
            self.cache.put(
                await self._cluster.apply(
                    KINDS[kind], applied, manager=names.STATUS_MANAGER, subresource="status"
                )
            )
        except Refused as refused:
            if refused.status != 404:
                raise


def _about(metadata: Metadata) -> Content:
    return {
        "apiVersion": names.API_VERSION, "kind": "UltraEngine", "name": metadata.name,
        "namespace": metadata.namespace, "uid": metadata.uid,
    }  # fmt: skip


def _with_problem(made: Plan, problem: Problem) -> Plan:
    return msgspec.structs.replace(
        made, problems=(*made.problems, problem), look_again_s=BACKOFF_S[-1]
    )
