"""Every disk that a power cut may leave, for every moment of a recorded run.

A run on a recording `SimDisk` gives a trace.  For each prefix of it, each subset of the steps
that were not synced at that moment is one state (OSDI'14 "All File Systems Are Not Created
Equal"; OSDI'18 B3: short runs show nearly all bugs).  Up to `exhaustive_max` such steps all
subsets are taken; beyond, the telling ones and a sample.  Torn sectors are added.  States
that are equal, byte by byte and in what was noted before, come once.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ultraengine.testing.sim_image import Image, Unsynced
from ultraengine.testing.sim_trace import Note, Operation

EXHAUSTIVE_MAX: Final = 8
SAMPLES: Final = 64

Plan = dict[Unsynced, int]
"""Bytes kept of each step; a step that is not in it is kept whole."""


class CrashState(msgspec.Struct, frozen=True):
    """A disk after a power cut, and what led to it."""

    length: int
    """Operations of the trace that had happened."""
    notes: tuple[object, ...]
    """What the run had noted until then."""
    lost: tuple[tuple[Unsynced, int], ...]
    """The steps that were lost (0) or torn (bytes kept)."""
    image: Image


def crash_states(
    trace: Sequence[Operation],
    chance: random.Random,
    *,
    base: Image | None = None,
    exhaustive_max: int = EXHAUSTIVE_MAX,
    samples: int = SAMPLES,
) -> Iterator[CrashState]:
    """All states, from before the first operation to after the last.

    `base` is what was on the disk when the recording began (everything in it durable); it is
    used up.  The same `chance` gives the same states.
    """
    image = Image() if base is None else base
    notes: list[object] = []
    seen: set[tuple[int, bytes]] = set()
    for length in range(len(trace) + 1):
        if length:
            operation = trace[length - 1]
            image.apply(operation)
            if isinstance(operation, Note):
                notes.append(operation.value)
        if length < len(trace) and isinstance(trace[length], Note):
            continue  # A note changes no disk: the state after it demands at least as much.
        steps = list(image.unsynced(significant=True))
        for plan in plans(steps, chance, exhaustive_max=exhaustive_max, samples=samples):
            after = image.crashed(lambda step, plan=plan: plan.get(step, step.length))  # type: ignore[misc]
            key = (len(notes), after.digest())
            if key not in seen:
                seen.add(key)
                lost = tuple((step, kept) for step, kept in plan.items() if kept < step.length)
                yield CrashState(length, tuple(notes), lost, after)


def plans(
    steps: Sequence[Unsynced],
    chance: random.Random,
    *,
    exhaustive_max: int = EXHAUSTIVE_MAX,
    samples: int = SAMPLES,
) -> Iterator[Plan]:
    """What to keep of `steps`: all subsets of a few, a choice of many; then torn sectors."""
    if len(steps) <= exhaustive_max:
        for kept in itertools.product((False, True), repeat=len(steps)):
            yield _plan(steps, kept)
    else:
        count = len(steps)
        for end in range(count + 1):  # Written in order up to a point, and the reverse.
            yield _plan(steps, [number < end for number in range(count)])
            yield _plan(steps, [number >= end for number in range(count)])
        for one in range(count):  # One alone is missing, or one alone came.
            yield _plan(steps, [number != one for number in range(count)])
            yield _plan(steps, [number == one for number in range(count)])
        for _ in range(samples):
            share = chance.random()
            yield _plan(steps, [chance.random() < share for _ in range(count)])
    for step in steps:
        if step.length > 1:
            torn = chance.randrange(1, step.length)
            before = [other.node != step.node or other.start < step.start for other in steps]
            yield _plan(steps, [True] * len(steps)) | {step: torn}
            yield _plan(steps, before) | {step: torn}


def _plan(steps: Sequence[Unsynced], kept: Sequence[bool]) -> Plan:
    return {step: step.length if keep else 0 for step, keep in zip(steps, kept, strict=True)}
