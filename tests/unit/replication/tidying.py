"""A state of the explorer without what can make no difference any more, so that fewer are walked.

    a swap that cannot land any more   is refused at once: its sender may hear of it whenever it
                                       likes, or never
    an answer, or the outcome of a swap, for a leader that is over    is forgotten
    records in force once              are told apart from the order in which they were; where
                                       nothing goes back and no disk is lost any more, those that
                                       nobody may lead by are forgotten

Each is exact: a state and its tidied one can reach the same violations (`test_explorer.py` compares
whole walks).  With a clause switched off that need not be so, so mutants are looked for without.
"""

from collections.abc import Iterator

from tests.unit.replication.world import Move, World, me, moves

from ultraengine.replication import promise as promises
from ultraengine.replication.record import Record


def tidy_moves(world: World) -> Iterator[Move]:
    """Every tidied state that one step can lead to."""
    for name, following in moves(world):
        yield name, tidied(following)


def tidied(world: World) -> World:
    """The same state in fewer words."""
    living = {
        one.leader.me: one.leader
        for one in world.replicas
        if one.leader is not None and not one.leader.over
    }
    answers = tuple(
        one for one in world.answers if one[1] in living and living[one[1]].epoch == one[0]
    )
    refused = [
        (new, False, sender)
        for expected, new, sender in world.swaps
        if sender is not None and expected != world.api
    ]
    awaited = {
        one
        for one in (*world.results, *refused)
        if one[2] in living and one[0] in living[one[2]].unresolved
    }
    return world.with_(
        answers=answers,
        swaps=tuple(one for one in world.swaps if one[0] == world.api),
        results=tuple(sorted(awaited, key=repr)),
        landed=_landed(world),
    )


def _landed(world: World) -> tuple[Record, ...]:
    first, rest = world.landed[0], set(world.landed) - {world.landed[0]}
    if not world.budget.rollbacks and not world.budget.wipes:
        rest = {
            known
            for known in rest
            if any(
                promises.may_lead(one.promise, known, me(number, one))
                for number, one in enumerate(world.replicas)
            )
        }
    return (first, *sorted(rest, key=lambda one: (one.order, repr(one))))
