"""The first record is made of empty disks that have sworn to be in it, and of nothing else."""

from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication.founding import Founding
from ultraengine.replication.messages import Ask, Found, Told
from ultraengine.replication.promise import NO_PROMISE, Promise
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import DiskId, Holder, Record, ReplicaId, Seat, bootstrap

SEATS = [Seat(ReplicaId(n), DiskId(bytes([n]))) for n in range(3)]
ME = Holder(SEATS[0], 4)
FIRST = bootstrap(b"c", ShardId(1), ME, SEATS, 2)
SWORN = Promise(Epoch(0), None, ConfigVersion(0), seated=True)


def attempt() -> Founding:
    return Founding(b"c", ShardId(1), ME, replicas=3, min_isr=2, number=10)


def told(number: int, replica: int, promise: Promise = NO_PROMISE, end: int = 0) -> Told:
    return Told(number, SEATS[replica], Answer(1, promise, Epoch(0), end), None)


def test_it_is_created_when_all_are_empty_and_all_have_sworn() -> None:
    made = attempt()
    assert made.ask == Ask(10)
    assert [made.told(told(10, n)) for n in (0, 2)] == [None, None]
    assert made.told(told(10, 1)) == Found(11, FIRST)
    assert [made.told(told(11, n, SWORN)) for n in (0, 0, 1)] == [None, None, None]
    assert made.told(told(11, 2, SWORN)) == FIRST
    assert not made.lost


def test_a_disk_that_holds_anything_says_that_a_record_was_lost() -> None:
    sworn = Promise(Epoch(3), None, ConfigVersion(1))
    for one in (told(10, 1, end=1), told(10, 1, sworn)):
        made = attempt()
        made.told(told(10, 0))
        made.told(one)
        assert made.told(told(10, 2)) is None
        assert made.lost


def test_a_disk_that_has_sworn_to_an_earlier_attempt_counts() -> None:
    made = attempt()
    answers = [made.told(told(10, n, SWORN)) for n in range(3)]
    assert answers[-1] == Found(11, FIRST)


def test_answers_to_others_and_refusals_do_not_count() -> None:
    made = attempt()
    assert all(made.told(told(11, n, SWORN)) is None for n in range(3))
    assert all(made.told(told(9, n)) is None for n in range(3))
    for n in range(3):
        made.told(told(10, n))
    other = Told(11, Seat(ReplicaId(2), DiskId(b"x")), Answer(1, SWORN, Epoch(0), 0), None)
    answers = [made.told(told(11, 0, SWORN)), made.told(told(11, 1, SWORN)), made.told(other)]
    answers.append(made.told(told(11, 2)))
    assert not any(isinstance(one, Record) for one in answers)


def test_a_log_that_was_never_replicated_is_the_first_copy_alone() -> None:
    adopted = Promise(Epoch(4), None, ConfigVersion(0), seated=True)
    made = attempt()
    record = made.told(told(10, 0, adopted, end=9))
    assert record == bootstrap(b"c", ShardId(1), ME, SEATS[:1], 1, epoch=Epoch(5))
    assert isinstance(record, Record)
    assert (record.replicas, record.min_isr) == (1, 1)


def test_nobody_adopts_the_log_of_another_place_or_beside_a_history() -> None:
    adopted = Promise(Epoch(4), None, ConfigVersion(0), seated=True)
    made = attempt()
    assert made.told(told(10, 1, adopted, end=9)) is None
    assert made.lost
    assert made.told(told(10, 0, adopted, end=9)) is None
