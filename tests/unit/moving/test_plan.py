"""What a coordinator does next, for each thing that it can see."""

import pytest

from ultraengine.model.ids import ShardId
from ultraengine.moving.plan import Action, Copy, Publish, Rest, Seen, Send, holder, plan
from ultraengine.moving.record import (
    FIRST_OWNER,
    NEVER_HELD,
    Activate,
    Attempt,
    Begin,
    Cancel,
    Finish,
    Reopen,
    Seal,
    SlotRecord,
    Stage,
    State,
    Stop,
)

A, B, C = ShardId(0), ShardId(1), ShardId(2)
ONE, TWO = Attempt(0, 1), Attempt(0, 2)
OWNER = Seen(FIRST_OWNER, position=10)
STOPPED = Seen(SlotRecord(state=State.OWNED, attempt=ONE), position=10)
NEVER = Seen(NEVER_HELD)
EXPORTING = Seen(SlotRecord(state=State.EXPORTING, attempt=ONE, peer=B), position=10)
SEALED = Seen(SlotRecord(state=State.SEALED, attempt=ONE, peer=B, digest=b"all"), position=10)
REFUSED = Seen(SlotRecord(state=State.ABSENT, attempt=ONE))
NEW_OWNER = Seen(SlotRecord(state=State.OWNED, attempt=Attempt(1, 0)), position=10)
GONE = REFUSED


def staged(attempt: Attempt = ONE, position: int = 10, digest: bytes = b"all") -> Seen:
    """A copy."""
    return Seen(SlotRecord(state=State.STAGED, attempt=attempt, peer=A), digest, position)


@pytest.mark.parametrize(
    ("goal", "mapped", "view", "action"),
    [
        (B, A, {A: OWNER, B: NEVER}, Send(A, Begin(ONE, B))),
        (B, A, {A: STOPPED, B: REFUSED}, Send(A, Begin(TWO, B))),
        (A, A, {A: OWNER, B: NEVER}, Rest.DONE),
        (B, A, {A: EXPORTING, B: NEVER}, Send(B, Stage(ONE, A))),
        (B, A, {A: EXPORTING, B: staged(position=4)}, Copy(A, B, ONE)),
        (B, A, {A: EXPORTING, B: staged(position=8)}, Send(A, Seal(ONE))),
        (B, A, {A: EXPORTING}, Rest.WAIT),
        (B, A, {A: EXPORTING, B: REFUSED}, Send(A, Stop(ONE))),
        (B, A, {A: EXPORTING, B: staged(TWO)}, Send(A, Stop(ONE))),
        (A, A, {A: EXPORTING}, Send(A, Stop(ONE))),
        (C, A, {A: EXPORTING, B: staged()}, Send(A, Stop(ONE))),
        (A, A, {A: STOPPED, B: staged()}, Send(B, Cancel(ONE))),
        (B, A, {A: SEALED, B: staged(position=8, digest=b"part")}, Copy(A, B, ONE)),
        (B, A, {A: SEALED, B: staged()}, Send(B, Activate(ONE, b"all"))),
        (B, A, {A: SEALED, B: NEVER}, Send(B, Stage(ONE, A))),
        (B, A, {A: SEALED}, Rest.WAIT),
        (A, A, {A: SEALED}, Rest.WAIT),
        (A, A, {A: SEALED, B: staged()}, Send(B, Cancel(ONE))),
        (B, A, {A: SEALED, B: REFUSED}, Send(A, Reopen(ONE, B, ONE))),
        (A, A, {A: SEALED, B: REFUSED}, Send(A, Reopen(ONE, B, ONE))),
        (B, A, {A: SEALED, B: NEW_OWNER}, Publish(B)),
        (B, B, {A: SEALED, B: NEW_OWNER}, Send(A, Finish(ONE, 1))),
        (B, B, {A: GONE, B: NEW_OWNER}, Rest.DONE),
        (A, B, {A: GONE, B: NEW_OWNER}, Send(B, Begin(Attempt(1, 1), A))),
        (B, B, {A: GONE}, Rest.WAIT),
    ],
)  # fmt: skip
def test_the_next_step_follows_from_what_was_seen(
    goal: ShardId, mapped: ShardId, view: dict[ShardId, Seen], action: Action
) -> None:
    assert plan(goal, mapped, view, lag_max=2) == action


def test_a_source_whose_successor_has_handed_the_slot_on_drops_it() -> None:
    onward = Seen(SlotRecord(state=State.ABSENT, attempt=Attempt(1, 1)))
    assert plan(B, B, {A: SEALED, B: onward}, lag_max=0) == Send(A, Finish(ONE, 1))


def test_a_copy_of_an_earlier_attempt_is_dropped_while_another_is_under_way() -> None:
    later = Seen(SlotRecord(state=State.EXPORTING, attempt=TWO, peer=C), position=3)
    assert plan(C, A, {A: later, B: staged(), C: NEVER}, lag_max=0) == Send(B, Cancel(ONE))


def test_what_contradicts_itself_because_it_is_old_is_looked_at_again() -> None:
    owner_again = Seen(SlotRecord(state=State.OWNED, attempt=Attempt(0, 0)))
    assert plan(B, A, {A: EXPORTING, B: owner_again}, lag_max=0) is Rest.WAIT


def test_of_two_that_seem_to_have_the_slot_the_one_of_the_later_era_has_it() -> None:
    assert holder({A: SEALED, B: NEW_OWNER}) == B
    assert holder({B: NEVER}) is None
