"""What one shard makes of each message about a slot."""

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import ShardId
from ultraengine.moving.record import (
    FIRST_OWNER,
    NEVER_HELD,
    NEXT,
    Activate,
    Attempt,
    Begin,
    Cancel,
    Finish,
    Message,
    Reason,
    Refused,
    Reopen,
    Seal,
    SlotRecord,
    Stage,
    State,
    Stop,
    fence,
    refuses,
    serves,
    step,
)

HERE, THERE, ELSEWHERE = ShardId(0), ShardId(1), ShardId(2)
IMAGE, OTHER = b"image", b"other"
ONE, TWO = Attempt(0, 1), Attempt(0, 2)
OWNED = FIRST_OWNER
EXPORTING = SlotRecord(state=State.EXPORTING, attempt=ONE, peer=THERE)
SEALED = SlotRecord(state=State.SEALED, attempt=ONE, peer=THERE, digest=IMAGE)
ABSENT = NEVER_HELD
STAGED = SlotRecord(state=State.STAGED, attempt=ONE, peer=HERE)
RECORDS = {one.state: one for one in (OWNED, EXPORTING, SEALED, ABSENT, STAGED)}
MESSAGES: dict[type, Message] = {
    Begin: Begin(ONE, THERE),
    Stop: Stop(ONE),
    Seal: Seal(ONE),
    Reopen: Reopen(ONE, THERE, ONE),
    Finish: Finish(ONE, 1),
    Stage: Stage(ONE, HERE),
    Activate: Activate(ONE, IMAGE),
    Cancel: Cancel(ONE),
}


def refusal(record: SlotRecord, message: Message, digest: bytes = IMAGE) -> Reason:
    """Why a message changes nothing."""
    with pytest.raises(Refused) as caught:
        step(record, message, digest)
    return caught.value.reason


def test_the_words_tested_here_are_all_there_are() -> None:
    assert set(MESSAGES) == set(get_args(Message))
    assert set(RECORDS) == set(State)


@pytest.mark.parametrize(("state", "kind"), list(product(State, MESSAGES)))
def test_a_pair_that_is_not_in_the_table_changes_nothing(state: State, kind: type[Message]) -> None:
    if (state, kind) in NEXT:
        assert callable(NEXT[state, kind])
    else:
        assert refusal(RECORDS[state], MESSAGES[kind]) is Reason.OTHER_STATE


def test_a_slot_goes_from_one_shard_to_the_other_and_is_one_era_later() -> None:
    source = step(OWNED, Begin(ONE, THERE), b"")
    assert source == EXPORTING
    copy = step(ABSENT, Stage(ONE, HERE), b"")
    assert copy == STAGED
    source = step(source, Seal(ONE), IMAGE)
    assert source == SEALED
    owner = step(copy, Activate(ONE, source.digest), IMAGE)
    assert owner == SlotRecord(state=State.OWNED, attempt=Attempt(1, 0))
    gone = step(source, Finish(ONE, owner.era), b"")
    assert gone == SlotRecord(state=State.ABSENT, attempt=ONE)
    assert [serves(one) for one in (OWNED, EXPORTING, SEALED, STAGED, owner, gone)] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_move_is_stopped_before_the_seal_by_the_source_alone() -> None:
    stopped = step(EXPORTING, Stop(ONE), b"")
    assert stopped == SlotRecord(state=State.OWNED, attempt=ONE)
    assert refusal(stopped, Begin(ONE, THERE)) is Reason.OTHER_ATTEMPT
    assert step(stopped, Begin(TWO, ELSEWHERE), b"").attempt == TWO


def test_after_the_seal_the_source_serves_again_only_when_the_destination_has_refused() -> None:
    fenced = step(STAGED, Cancel(ONE), b"")
    assert fence(fenced) == ONE
    assert refuses(fenced, ONE)
    reopened = step(SEALED, Reopen(ONE, THERE, ONE), b"")
    assert reopened == SlotRecord(state=State.OWNED, attempt=ONE)
    assert refusal(SEALED, Reopen(ONE, ELSEWHERE, ONE)) is Reason.NO_PROOF
    assert refusal(SEALED, Reopen(ONE, THERE, Attempt(0, 0))) is Reason.NO_PROOF
    assert refusal(SEALED, Reopen(ONE, THERE, Attempt(1, 1))) is Reason.NO_PROOF
    assert refusal(fenced, Stage(ONE, HERE)) is Reason.OTHER_ATTEMPT
    assert refusal(fenced, Activate(ONE, IMAGE)) is Reason.OTHER_STATE


def test_a_sealed_slot_is_dropped_only_when_a_later_owner_is_shown() -> None:
    assert refusal(SEALED, Finish(ONE, 0)) is Reason.NO_PROOF
    assert step(SEALED, Finish(ONE, 3), b"").state is State.ABSENT


def test_a_copy_that_is_not_the_sealed_image_is_not_activated() -> None:
    assert refusal(STAGED, Activate(ONE, IMAGE), OTHER) is Reason.OTHER_IMAGE


def test_an_active_owner_cannot_be_cancelled_any_more() -> None:
    owner = SlotRecord(state=State.OWNED, attempt=Attempt(1, 0))
    assert refusal(owner, Cancel(ONE)) is Reason.OTHER_STATE
    assert fence(owner) is None
    assert not refuses(owner, ONE)


def test_an_owner_was_not_activated_by_an_attempt_of_its_own() -> None:
    assert refusal(EXPORTING, Activate(ONE, IMAGE)) is Reason.OTHER_STATE


def test_a_later_attempt_replaces_a_copy_and_fences_the_earlier_one() -> None:
    later = step(STAGED, Stage(TWO, HERE), b"")
    assert later.attempt == TWO
    assert fence(later) == ONE
    assert refuses(later, ONE)
    assert not refuses(later, TWO)
    assert step(later, Cancel(ONE), b"") is later
    assert refusal(later, Stage(ONE, HERE)) is Reason.OTHER_ATTEMPT
    assert refusal(later, Activate(ONE, IMAGE)) is Reason.OTHER_ATTEMPT


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (OWNED, Stop(ONE)),
        (OWNED, Reopen(ONE, THERE, ONE)),
        (EXPORTING, Begin(TWO, THERE)),
        (EXPORTING, Begin(ONE, ELSEWHERE)),
        (EXPORTING, Stop(TWO)),
        (EXPORTING, Seal(TWO)),
        (SEALED, Seal(TWO)),
        (SEALED, Reopen(TWO, THERE, TWO)),
        (SEALED, Finish(TWO, 1)),
        (ABSENT, Finish(ONE, 1)),
        (ABSENT, Stage(Attempt(0, 0), HERE)),
        (STAGED, Activate(TWO, IMAGE)),
    ],
)
def test_a_message_of_another_attempt_changes_nothing(record: SlotRecord, message: Message) -> None:
    assert refusal(record, message) is Reason.OTHER_ATTEMPT


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (OWNED, Begin(ONE, THERE)),
        (EXPORTING, Stop(ONE)),
        (EXPORTING, Seal(ONE)),
        (SEALED, Reopen(ONE, THERE, ONE)),
        (SEALED, Finish(ONE, 1)),
        (ABSENT, Stage(ONE, HERE)),
        (STAGED, Activate(ONE, IMAGE)),
        (STAGED, Cancel(ONE)),
        (ABSENT, Cancel(ONE)),
    ],
)
def test_a_message_that_comes_twice_has_its_effect_once(
    record: SlotRecord, message: Message
) -> None:
    after = step(record, message, IMAGE)
    assert after != record
    assert step(after, message, IMAGE) == after


ATTEMPTS = st.builds(Attempt, st.integers(0, 2), st.integers(0, 2))
SHARDS = st.sampled_from([HERE, THERE, ELSEWHERE])
ANY_MESSAGE = st.one_of(
    st.builds(Begin, ATTEMPTS, SHARDS),
    st.builds(Stop, ATTEMPTS),
    st.builds(Seal, ATTEMPTS),
    st.builds(Reopen, ATTEMPTS, SHARDS, ATTEMPTS),
    st.builds(Finish, ATTEMPTS, st.integers(0, 3)),
    st.builds(Stage, ATTEMPTS, SHARDS),
    st.builds(Activate, ATTEMPTS, st.sampled_from([IMAGE, OTHER])),
    st.builds(Cancel, ATTEMPTS),
)


@given(st.sampled_from([FIRST_OWNER, NEVER_HELD]), st.lists(ANY_MESSAGE, max_size=12))
def test_attempts_never_go_back_whatever_arrives(
    record: SlotRecord, messages: list[Message]
) -> None:
    for message in messages:
        try:
            after = step(record, message, IMAGE)
        except Refused:
            continue
        assert after.attempt >= record.attempt
        is_under_way = after.state in {State.EXPORTING, State.SEALED, State.STAGED}
        assert (after.peer is not None) == is_under_way
        record = after
