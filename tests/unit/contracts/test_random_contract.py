"""What every implementation of the Random port does."""

import pytest

from ultraengine.ports import Random
from ultraengine.testing.sim_clock import SimRandom
from ultraengine_adapters.local.random import SystemRandom


class RandomContract:
    """Subclasses say which source."""

    @pytest.fixture
    def random(self) -> Random:
        raise NotImplementedError

    @pytest.mark.parametrize("length", [0, 1, 16, 32, 100_000])
    def test_as_many_bytes_come_as_were_asked_for(self, random: Random, length: int) -> None:
        found = random.bytes(length)
        assert isinstance(found, bytes)
        assert len(found) == length

    def test_a_negative_length_is_refused(self, random: Random) -> None:
        with pytest.raises(ValueError, match="negative"):
            random.bytes(-1)

    def test_no_sixteen_bytes_come_twice(self, random: Random) -> None:
        assert len({random.bytes(16) for _ in range(10_000)}) == 10_000

    def test_every_bit_is_about_as_often_one_as_zero(self, random: Random) -> None:
        sample = random.bytes(1_000_000)
        for bit in range(8):
            ones = sum(byte >> bit & 1 for byte in sample)
            # Ten standard deviations of 500: by chance once in 10**23 runs.
            assert abs(ones - 500_000) < 5_000


class TestSystemRandom(RandomContract):
    @pytest.fixture
    def random(self) -> Random:
        return SystemRandom()

    def test_two_sources_differ(self) -> None:
        assert SystemRandom().bytes(16) != SystemRandom().bytes(16)


class TestSimRandom(RandomContract):
    @pytest.fixture
    def random(self) -> Random:
        return SimRandom(3)

    def test_a_seed_gives_the_same_bytes_again_and_another_seed_others(self) -> None:
        first, same, other = SimRandom(1), SimRandom(1), SimRandom(2)
        drawn = [first.bytes(n) for n in (3, 16, 5)]
        assert drawn == [same.bytes(n) for n in (3, 16, 5)]
        assert drawn != [other.bytes(n) for n in (3, 16, 5)]
