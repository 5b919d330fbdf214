"""PROMISE: the highest epoch entered on a disk."""

import pytest

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch
from ultraengine.shard.promise import (
    PATH,
    decode_promise,
    encode_promise,
    read_promise,
    write_promise,
)
from ultraengine.testing.sim_disk import SimDisk


def test_nothing_is_promised_on_an_empty_disk() -> None:
    assert read_promise(SimDisk(1)) == 0


def test_a_promise_survives_a_power_cut_as_soon_as_it_is_written() -> None:
    disk = SimDisk(1)
    write_promise(disk, Epoch(7))
    disk = disk.power_cut()
    assert read_promise(disk) == 7
    write_promise(disk, Epoch(8))
    assert read_promise(disk.power_cut()) == 8


def test_every_flipped_bit_and_every_other_length_is_damage() -> None:
    good = encode_promise(Epoch(12345))
    assert decode_promise(good) == 12345
    damaged = [good[:-1], good + b"\0", b""]
    for position in range(len(good)):
        for bit in range(8):
            one = bytearray(good)
            one[position] ^= 1 << bit
            damaged.append(bytes(one))
    for data in damaged:
        with pytest.raises(InvariantBroken, match="remove it only if no other replica"):
            decode_promise(data)


def test_a_damaged_promise_on_disk_is_not_taken_for_none() -> None:
    disk = SimDisk(1)
    write_promise(disk, Epoch(7))
    disk.flip_bits(PATH, 9)
    with pytest.raises(InvariantBroken, match="PROMISE is damaged"):
        read_promise(disk)
