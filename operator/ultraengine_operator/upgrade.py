"""Bringing an engine to another image: gateways, reads, then shard by shard, each proved first.

    gateways   the new image takes the first pod more than there are (the canary), and the others
               one by one once it is ready: a Deployment does so whose old pods all stay meanwhile
    reads      query pods and projections, once all gateways are as wished
    shards     a candidate decides the shard's log again; only then does its StatefulSet get the
               image (`rollout` restarts followers first, the leader last), and then the next shard

Where an engine stands is what its objects show: which images their templates name, and how a
candidate ended. So a pod that restarts for another reason has the image that its shard was proved
for, and an operator that ends anywhere is followed by one that plans the same. The first candidate
that decides differently holds all shards where they are. What a StatefulSet says of its proof names
the image that it came from: going back there needs no candidate while both builds write the same
formats.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ultraengine.model.candidate import Verdict
from ultraengine_operator import names
from ultraengine_operator.actions import Action, Create, Delete
from ultraengine_operator.copies import lacking, serving
from ultraengine_operator.observed import Observed, Ref, SeenCandidate, SeenSet, digest
from ultraengine_operator.reasons import Problem, Reason
from ultraengine_operator.rollout import outdated, timestamp_s, unready
from ultraengine_operator.specs import candidate, reads
from ultraengine_operator.specs.view import EngineView, Manifest

RETRY_S: Final = 60.0
"""After a candidate that has come to no verdict, until the next one."""
READS: Final = ("query", "projection")


class Proof(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a StatefulSet keeps of the candidate that let its image through."""

    image: str
    came_from: str
    offset: str
    """First offset that was not decided again; a number of 64 bits, as text."""
    compared: str
    state_hash: str
    may_return: bool
    """Whether both images write the same formats."""
    accepted: bool = False
    """Whether it was not let through by its candidate, and a person has accepted that."""


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is, and what is next."""

    held: frozenset[Ref] = frozenset()
    """Children that stay as they are for now."""
    instead: Mapping[Ref, str] = {}
    """The image of children that are missing and whose turn has not come."""
    proofs: Mapping[int, str] = {}
    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    frozen: bool = False
    """Whether no pod may be restarted: a candidate differs."""
    message: str = ""
    """What it waits for; empty when no upgrade is under way."""
    progress: dict[str, Any] | None = None
    """`status.upgrade`."""
    look_again_s: float | None = None


NOTHING: Final = Upgrade()


def proof_of(one: SeenSet) -> Proof | None:
    """Why the pods of a shard have their image; None when nothing is said, or of another image."""
    try:
        found = msgspec.json.decode(one.proof, type=Proof)
    except msgspec.DecodeError:
        return None
    return found if found.image == one.image else None


def _goes_back(one: SeenSet, image: str) -> bool:
    proof = proof_of(one)
    return proof is not None and proof.may_return and proof.came_from == image


def question(view: EngineView, shard: int, within_s: float) -> Manifest:
    """The candidate that is to be asked, named by all that it is told."""
    asked = candidate.pod(view, shard, within_s)
    asked["metadata"]["annotations"][names.QUESTION] = digest(asked)
    return asked


def upgrade(
    view: EngineView, observed: Observed, *, at_once: int, within_s: float, now_s: float
) -> Upgrade:
    """The next steps towards `view.image`; at most `at_once` shards are under way."""
    sets = [one for one in map(observed.set_of, view.shards) if one is not None and one.image]
    old = [one for one in sets if one.image != view.image]
    bound = [one for one in old if not _goes_back(one, view.image)]
    first = _before_shards(view, observed)
    work = _Shards(view, observed, within_s, now_s)
    work.look(bound, room=at_once - len(_under_way(view, observed, sets)), begin=first == "")
    bound_refs = {Ref("StatefulSet", names.shard_name(view.name, one.shard)) for one in bound}
    released = {Ref("StatefulSet", names.shard_name(view.name, one)) for one in work.released}
    late = frozenset(
        Ref("Deployment", one.name)
        for one in observed.deployments
        if one.component in READS and one.image not in ("", view.image)
    )
    held = (bound_refs - released) | (late if not _gateway_is_done(view, observed) else frozenset())
    kept = {one.shard: one.proof for one in sets if one.image == view.image and proof_of(one)}
    return Upgrade(
        held=frozenset(held),
        instead=_missing(view, observed, bound),
        proofs={**kept, **work.released},
        actions=(*work.actions, *_stale(observed, work.asked)),
        problems=tuple(work.problems),
        frozen=work.refused is not None,
        look_again_s=work.look_again_s,
        **_told(view, observed, sets, first, work),
    )


def _gateway_is_done(view: EngineView, observed: Observed) -> bool:
    seen = observed.gateway
    return seen is not None and seen.image == view.image and seen.behind is None


def _before_shards(view: EngineView, observed: Observed) -> str:
    """What shards wait for; nothing when it is their turn."""
    gateway = observed.gateway
    if gateway is None:
        return "gateways first: there is none"
    if not _gateway_is_done(view, observed):
        return f"gateways first: {gateway.behind or 'the old image'}"
    seen = {one.name: one for one in observed.deployments}
    for name, _ in reads.wished(view.engine.spec, view.name):
        one = seen.get(name)
        if one is None or one.image != view.image or one.behind is not None:
            why = "it does not exist yet" if one is None else one.behind or "the old image"
            return f"reads before shards: {name}: {why}"
    return ""


def _under_way(view: EngineView, observed: Observed, sets: list[SeenSet]) -> tuple[int, ...]:
    """Shards that have the image and are not whole with it, or of which nobody knows yet which pods
    are old."""
    new = tuple(one.shard for one in sets if one.image == view.image)
    unknown = {one.shard for one in sets if one.image == view.image and not one.settled}
    found = {pod.shard for pod in outdated(observed, new)} | unknown
    return tuple(sorted({*found, *unready(observed, new), *lacking(observed, new)}))


def _missing(view: EngineView, observed: Observed, bound: list[SeenSet]) -> dict[Ref, str]:
    """StatefulSets that are to be made while others wait for their turn: as the others are."""
    if not bound:
        return {}
    there = {one.shard for one in observed.sets}
    return {
        Ref("StatefulSet", names.shard_name(view.name, shard)): bound[0].image
        for shard in view.shards
        if shard not in there
    }


def _stale(observed: Observed, asked: Mapping[int, str]) -> tuple[Action, ...]:
    """Candidates whose question is asked no more."""
    return tuple(
        Delete(Ref("Pod", one.name), one.uid)
        for one in observed.candidates
        if not one.deleting and asked.get(one.shard) != one.question
    )


class _Shards:
    """Those whose image is to be proved."""

    def __init__(self, view: EngineView, observed: Observed, within_s: float, now_s: float) -> None:
        self._view = view
        self._observed = observed
        self._within_s = within_s
        self._now_s = now_s
        self.accepted = view.engine.metadata.annotations.get(names.ACCEPT) == view.image
        self.asked: dict[int, str] = {}
        self.released: dict[int, str] = {}
        """By shard, the proof."""
        self.actions: list[Action] = []
        self.problems: list[Problem] = []
        self.refused: SeenCandidate | None = None
        self.current: SeenCandidate | None = None
        """The first one that is being waited for."""
        self.waiting = ""
        self.look_again_s: float | None = None

    def look(self, bound: list[SeenSet], *, room: int, begin: bool) -> None:
        """Judge the candidates that there are, then begin with as many as there is room for."""
        seen = {one.shard: one for one in self._observed.candidates}
        manifests = {one.shard: question(self._view, one.shard, self._within_s) for one in bound}
        self.asked = {
            shard: made["metadata"]["annotations"][names.QUESTION]
            for shard, made in manifests.items()
        }
        fitting = {
            shard: one
            for shard, one in seen.items()
            if one.question == self.asked.get(shard) and not one.deleting
        }
        self.refused = next(
            (one for _, one in sorted(fitting.items()) if self._is_refusal(one)), None
        )
        if self.refused is not None:
            self.problems.append(_differs(self.refused))
            return
        for one in bound:
            there = fitting.get(one.shard)
            if there is not None:
                room -= 1
                self._judge(one, there)
        for one in bound:
            if one.shard in seen:
                # One that is on its way out is still this shard's turn.
                room -= one.shard not in fitting
                continue
            if not begin or room <= 0:
                continue
            if serving(self._observed, one.shard) is None:
                self.waiting = self.waiting or f"shard {one.shard} is not ready"
                continue
            room -= 1
            self.actions.append(Create(manifests[one.shard]))

    def _is_refusal(self, one: SeenCandidate) -> bool:
        return one.verdict is not None and one.verdict.verdict == "refused" and not self.accepted

    def _judge(self, one: SeenSet, there: SeenCandidate) -> None:
        ended = there.phase in ("Succeeded", "Failed") or there.verdict is not None
        verdict = there.verdict or Verdict(verdict="unproved", shard=one.shard, detail=there.why)
        if ended and (verdict.verdict == "ok" or self.accepted):
            proof = Proof(
                image=self._view.image,
                came_from=one.image,
                offset=str(verdict.offset),
                compared=str(verdict.compared),
                state_hash=verdict.state_hash,
                may_return=verdict.may_return,
                accepted=verdict.verdict != "ok",
            )
            self.released[one.shard] = msgspec.json.encode(proof).decode()
            return
        self.current = self.current or there
        if ended:
            self._again(there, verdict.detail)

    def _again(self, there: SeenCandidate, why: str) -> None:
        """A candidate has come to no verdict."""
        self.problems.append(
            Problem(
                Reason.CANDIDATE_FAILED,
                f"shard {there.shard}: the candidate of {there.image} has come to no verdict "
                f"({why}); another one is made after {RETRY_S:.0f} s",
                holds=False,
            )
        )
        left_s = timestamp_s(there.ended) + RETRY_S - self._now_s
        if left_s <= 0:
            self.actions.append(Delete(Ref("Pod", there.name), there.uid))
        else:
            self.look_again_s = min(left_s + 1.0, self.look_again_s or left_s + 1.0)


def _differs(one: SeenCandidate) -> Problem:
    verdict = one.verdict
    what = "cannot take the shard over"
    if verdict is not None and verdict.command_type:
        what = f"decides offset {verdict.offset} ({verdict.command_type}) differently"
    elif verdict is not None:
        what = f"cannot take the shard over at offset {verdict.offset}: {verdict.detail}"
    return Problem(
        Reason.CANDIDATE_DIFFERS,
        f"shard {one.shard}: {one.image} {what}; no shard is upgraded any further, and setting "
        "spec.image back undoes what was",
        holds=False,
    )


def _told(
    view: EngineView, observed: Observed, sets: list[SeenSet], first: str, work: _Shards
) -> dict[str, Any]:
    """The message and the progress; nothing when all is at the image."""
    others = [one for one in observed.deployments if one.image not in ("", view.image)]
    old = [one.shard for one in sets if one.image != view.image]
    proved = [one for one in sets if one.image == view.image and proof_of(one) is not None]
    restarting = _under_way(view, observed, proved)
    behind = {pod.shard for pod in outdated(observed, tuple(one.shard for one in proved))}
    if not (others or old or behind):
        return {}
    done = [one.shard for one in sets if one.shard not in {*old, *restarting}]
    stage = "Shards"
    message = work.waiting or "the next shard"
    if others or (old and first):
        stage = "Gateways" if not _gateway_is_done(view, observed) else "Reads"
        message = first or "reads before shards"
    elif restarting:
        message = f"shard {restarting[0]} gets its pods"
    elif work.current is not None:
        message = f"shard {work.current.shard}: its candidate is {work.current.phase}"
    elif work.refused is not None:
        message = f"shard {work.refused.shard}: its candidate differs"
    progress: dict[str, Any] = {
        "image": view.image,
        "stage": stage,
        "shardsDone": len(done),
        "shardsTotal": len(sets),
        "progress": f"{len(done)}/{len(sets)}",
    }
    about = work.refused or work.current
    if about is not None:
        progress["shard"] = about.shard
        progress["candidate"] = about.phase
        if about.verdict is not None and about.verdict.verdict == "refused":
            progress["firstDifference"] = str(about.verdict.offset)
    return {"message": f"{view.image}: {message}", "progress": progress}
