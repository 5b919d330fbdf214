"""What may go wrong in a run, drawn from its seed: most runs have a few faults, none has all.

Many faults at once hide each other; a run with few of them goes far (Groce et al., "Swarm
Testing", ISSTA 2012).
"""

import random

import msgspec

from ultraengine.replication.effects import ReplicaLimits

SHAPES = ((3, 2), (3, 2), (3, 2), (3, 2), (2, 1), (2, 2), (3, 3), (3, 1))
"""(replicas, min_isr)."""


SNAPSHOTS = 0.25
"""How many runs; the word in `drawn` leaves out those that show clauses which have nothing to do
with it, so that they go on showing them."""


class Chaos(msgspec.Struct, frozen=True, kw_only=True):
    """One run's configuration."""

    replicas: int = 3
    min_isr: int = 2
    clients: int = 2
    until_s: float = 3.0
    """When everything heals."""
    delay_s: float = 0.002
    """Longest delay of most messages."""
    slow: float = 0.0
    """How many messages take up to a second: they overtake and are overtaken."""
    loss: float = 0.0
    twice: float = 0.0
    flush_s: float = 0.002
    """Longest flush."""
    faults: tuple[str, ...] = ()
    """Kinds of what happens now and then."""
    every_s: float = 0.3
    """How often one of them happens, on average."""
    crash_in_effects: float = 0.0
    """How often a process ends between two steps of one effect."""
    api_loss: float = 0.0
    """How many requests to the API server, and how many answers, are lost."""
    stale_watch: float = 0.0
    """How often an old record is told to somebody who watches."""
    restless: float = 0.0
    """How often the operator replaces a leader that is well."""
    snapshot_frames: int = 0
    """How often a replica keeps a snapshot, and cuts its log behind it; 0 = never."""
    greedy: float = 0.0
    """How often it cuts although a copy that lives needs what goes, as beyond a cap of bytes."""
    handovers: float = 0.0
    """How often in a second the operator asks a leader to hand over to a copy.  In runs of their
    own: the seeds of all others stay what they were."""
    reads: bool = False
    """Whether whoever leads is read from all the time; likewise."""
    resizes: float = 0.0
    """How often in a second another number of copies is wished, of 1 to `replicas`; likewise."""
    beside: bool = False
    """Whether each replica plans failovers, in place of one operator; likewise."""
    repeat_s: float = 0.0
    """`ReplicaLimits.repeat_s`; as in production in runs of their own, likewise."""
    skew: bool = False
    """Clocks run at different rates, and wall clocks jump."""


FAULTS = (
    "kill",
    "power cut",
    "power cut of all",
    "pause",
    "one way",
    "isolated",
    "bridge",
    "no api",
    "no operator",
    "wiped",
    "rolled back",
    "slow disk",
)


def drawn(seed: int) -> Chaos:
    """The configuration of a seed."""
    rng = random.Random(seed)
    replicas, min_isr = rng.choice(SHAPES)

    def sometimes(most: float) -> float:
        return rng.uniform(0, most) if rng.random() < 0.4 else 0.0

    faults = tuple(one for one in FAULTS if rng.random() < 0.35)
    if min_isr < 2 or replicas == min_isr:
        # Nothing may be lost; or what is lost blocks the shard until a person says so.
        faults = tuple(one for one in faults if one != "wiped")
    if min_isr * 2 <= replicas:
        faults = tuple(one for one in faults if one != "rolled back")
    chaos = Chaos(
        replicas=replicas,
        min_isr=min_isr,
        clients=rng.randint(1, 3),
        until_s=rng.uniform(1.5, 4.0),
        delay_s=rng.choice((0.001, 0.005, 0.05)),
        slow=sometimes(0.1),
        loss=sometimes(0.2),
        twice=sometimes(0.2),
        flush_s=rng.choice((0.001, 0.01, 0.1)),
        faults=faults,
        every_s=rng.uniform(0.1, 0.8),
        crash_in_effects=sometimes(0.02),
        api_loss=sometimes(0.4),
        stale_watch=sometimes(0.5),
        restless=sometimes(0.3),
        skew=rng.random() < 0.3,
    )
    return with_snapshots(chaos, random.Random(f"half {seed}"))


def with_snapshots(chaos: Chaos, rng: random.Random) -> Chaos:
    """In some runs logs are cut, and more often disks are lost: what is cut has to be replaced."""
    if rng.random() >= SNAPSHOTS:
        return chaos
    faults = chaos.faults
    if "wiped" not in faults and 2 <= chaos.min_isr < chaos.replicas:
        faults = (*faults, "wiped")
    return msgspec.structs.replace(
        chaos,
        snapshot_frames=rng.choice((3, 6, 12)),
        greedy=rng.choice((0.0, 0.3, 1.0)),
        clients=3,
        delay_s=min(chaos.delay_s, 0.005),
        until_s=chaos.until_s + 2.0,
        faults=faults,
    )


def terse(seed: int) -> Chaos:
    """The same faults among copies that say nothing twice, as they are by default."""
    return msgspec.structs.replace(drawn(seed), repeat_s=ReplicaLimits().repeat_s)


def as_it_runs(seed: int) -> Chaos:
    """The same faults, wall clocks that jump, and a record that is gone for a while, where each
    replica plans failovers and copies say nothing twice."""
    chaos = terse(seed)
    return msgspec.structs.replace(
        chaos, beside=True, faults=(*chaos.faults, "clock jump", "no record")
    )


def with_handovers(seed: int) -> Chaos:
    """The same faults, and an operator that asks for a switchover twice in a second."""
    return msgspec.structs.replace(drawn(seed), handovers=2.0)


def with_cuts(seed: int) -> Chaos:
    """The same faults in runs that all cut their logs, often against what copies need, and lose
    disks; switchovers and reads on top."""
    rng, chaos = random.Random(f"cuts {seed}"), drawn(seed)
    loses = 2 <= chaos.min_isr < chaos.replicas
    return msgspec.structs.replace(
        chaos,
        snapshot_frames=rng.choice((3, 6, 12)),
        greedy=rng.choice((0.3, 1.0)),
        clients=3,
        until_s=5.0,
        faults=tuple(sorted({*chaos.faults, *(("wiped",) if loses else ())})),
        handovers=rng.choice((0.0, 1.0)),
        reads=rng.random() < 0.5,
    )


def with_resizes(seed: int) -> Chaos:
    """The same faults, of up to three copies whose number changes all the time; logs are cut in
    half of the runs, and leaders hand over."""
    rng, chaos = random.Random(f"sizes {seed}"), drawn(seed)
    faults = {one for one in FAULTS if rng.random() < 0.35}
    return msgspec.structs.replace(
        chaos,
        replicas=3,
        min_isr=2,
        until_s=6.0,
        delay_s=min(chaos.delay_s, 0.005),
        flush_s=min(chaos.flush_s, 0.01),
        every_s=max(chaos.every_s, 0.4),
        faults=tuple(one for one in FAULTS if one in faults),
        snapshot_frames=rng.choice((0, 6)),
        greedy=rng.choice((0.0, 0.3)),
        handovers=rng.choice((0.0, 0.5)),
        resizes=rng.choice((0.5, 1.0, 2.0)),
    )


def with_sizes_back(seed: int) -> Chaos:
    """The number of copies changes often, the record goes back once, and whoever plans hears one
    replica alone now and then: what a disk has sworn of the number is all that helps."""
    rng = random.Random(f"sizes back {seed}")
    others = ("kill", "isolated", "one way", "pause", "no operator")
    faults = tuple(one for one in others if rng.random() < 0.5)
    return msgspec.structs.replace(
        with_resizes(seed),
        faults=("rolled back", "one is heard", "one is heard", *faults),
        every_s=rng.uniform(0.2, 0.6),
        crash_in_effects=0.0,
        api_loss=0.0,
        stale_watch=0.0,
        loss=0.0,
        slow=0.0,
        restless=rng.choice((0.0, 0.3)),
        snapshot_frames=0,
        handovers=rng.choice((0.0, 1.0)),
        resizes=2.0,
    )


def with_reads(seed: int) -> Chaos:
    """Leaders that are cut off or stopped, and are read from all the time."""
    rng = random.Random(seed)
    faults = tuple(one for one in ("isolated", "pause", "one way") if rng.random() < 0.6)
    return Chaos(clients=3, until_s=4.0, every_s=0.8, faults=faults, reads=True)
