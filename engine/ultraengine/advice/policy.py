"""Under which conditions indexes are made without asking.  Pure.

gain_min = 3.0               # TOML; what is absent is as in the limits of `ultra advise`
write_cost_max = 0.2
indexes_per_table_max = 2
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.advice.suggest import Place
from ultraengine.advice.trial import Trial, Verdict
from ultraengine.model.errors import Malformed
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS, AdviceLimits

AUTO: Final = "auto"
"""In place of a file: all as in the limits."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an index must bring and may cost."""

    gain_min: float = DEFAULT_ADVICE_LIMITS.gain_min
    write_cost_max: float = DEFAULT_ADVICE_LIMITS.write_cost_max
    indexes_per_table_max: int = DEFAULT_ADVICE_LIMITS.indexes_per_table_max


class Admitted(msgspec.Struct, frozen=True):
    """What may be made."""

    trials: tuple[Trial, ...]
    refused: tuple[tuple[Trial, str], ...]
    """Kept by their trial, but not by the policy, and why."""


def of_limits(limits: AdviceLimits) -> Policy:
    """The policy of the limits themselves."""
    return Policy(limits.gain_min, limits.write_cost_max, limits.indexes_per_table_max)


def parse(text: str, limits: AdviceLimits) -> Policy:
    """A policy from TOML.  Raises `Malformed`."""
    try:
        given = tomllib.loads(text)
        whole = {**msgspec.structs.asdict(of_limits(limits)), **given}
        policy = msgspec.convert(whole, Policy)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Malformed(f"the policy cannot be read: {error}") from error
    if policy.gain_min < 1 or policy.write_cost_max < 0 or policy.indexes_per_table_max < 0:
        raise Malformed(
            "a policy has gain_min of 1 or more, write_cost_max and indexes_per_table_max of 0 "
            "or more"
        )
    return policy


def admitted(
    trials: Iterable[Trial], policy: Policy, present: Mapping[Place, Sequence[str]]
) -> Admitted:
    """The kept trials that the policy lets through; `present`: names of added indexes."""
    counts = {place: len(names) for place, names in present.items()}
    through, refused = [], []
    for one in trials:
        if one.verdict is not Verdict.KEEP:
            continue
        place = (one.candidate.projection, one.candidate.table)
        count = counts.get(place, 0)
        share = 0.0 if one.write is None else one.write.share
        if one.gain < policy.gain_min:
            why = f"a gain of {one.gain:g} is below gain_min ({policy.gain_min:g})"
        elif share > policy.write_cost_max:
            why = (
                f"a write cost of {share:.0%} is above write_cost_max ({policy.write_cost_max:.0%})"
            )
        elif count >= policy.indexes_per_table_max:
            why = (
                f"{one.candidate.table} has {count} added indexes, indexes_per_table_max is "
                f"{policy.indexes_per_table_max}"
            )
        else:
            counts[place] = count + 1
            through.append(one)
            continue
        refused.append((one, why))
    return Admitted(tuple(through), tuple(refused))
