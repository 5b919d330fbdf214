"""A domain asks for commands of keys that other shards own, and shards are killed meanwhile.

Every message adds one to a counter under an id of its own, so a counter that is higher than the
number of requests was told something twice, and one that stays lower was not told.
"""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.shards.test_shards_of_one_machine import Machine, until

from ultraengine.router.shard_map import ShardMap

DOMAINS = (
    "--domain", "tests.unit.delivery.relay:DOMAIN",
    "--domain", "ultraengine.domains.counter:DOMAIN",
)  # fmt: skip
KEYS = [f"k{number}" for number in range(8)]
REQUESTS = 20
KILLED_AT = {5: 0, 12: 1}
"""After which request which shard is killed."""


def send(machine: Machine, number: int) -> None:
    """Ask until it is answered, which a shard that was killed does when it is back."""
    body = {
        "id": f"ask-{number}", "type": "relay.pass", "key": f"r{number}", "data": {"to": KEYS},
    }  # fmt: skip
    until(lambda: machine.ask("POST", "/v1/commands", body)[0] == 200)


def counts(machine: Machine) -> list[Any]:
    """What each counter has heard; None where it cannot be read now."""
    answers = [machine.ask("GET", f"/v1/counter/{key}") for key in KEYS]
    return [body["additions"] if status == 200 else None for status, body in answers]


def test_messages_between_shards_arrive_once_while_shards_are_killed(tmp_path: Path) -> None:
    shard_map = ShardMap.even(2)
    assert {shard_map.shard_of("default", key) for key in KEYS} == {0, 1}
    assert {shard_map.shard_of("default", f"r{n}") for n in range(REQUESTS)} == {0, 1}
    with tempfile.TemporaryDirectory(prefix="u-") as place:
        machine = Machine(tmp_path / "data", Path(place), "--shards", "2", *DOMAINS)
        try:
            for number in range(REQUESTS):
                send(machine, number)
                if number in KILLED_AT:
                    os.kill(machine.pid_of(KILLED_AT[number]), signal.SIGKILL)
            until(lambda: counts(machine) == [REQUESTS] * len(KEYS))
            assert machine.stop() == 0
            machine = Machine(machine.data, machine.place, *DOMAINS)
            send(machine, REQUESTS)
            until(lambda: counts(machine) == [REQUESTS + 1] * len(KEYS))
        finally:
            machine.process.kill()
            machine.end()
