"""Where a command's processor time goes: from request bytes to reply bytes, without the world.

    taskset -c 0 python benchmarks/stages.py [--shape batch] [--items 1000] [--requests 60]

Runs the real edge, registry, machine, executor and idempotency index in one process; sockets,
the log's writes and the history's files are left out.  Prints microseconds of processor time
per transfer for each stage: the median and the best tenth of all requests.
"""

import argparse
import gc
import statistics
import time
from collections import defaultdict

import load
import msgspec

from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.edge.codec import MSGPACK
from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Registry
from ultraengine.gateway.admission import admit_all, merge
from ultraengine.gateway.envelope import decode_batch
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.ids import Epoch, Instant, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.driver import UNITS_PER_TURN
from ultraengine.shard.machine import Machine
from ultraengine.testing.memory import START, MemoryHistory

WARM_UP = 5


class Client:
    """Who sends the commands."""

    tenant = "t"
    principal = "p"
    scopes = frozenset({"*:write"})


class Stages:
    """One engine without its world, and the seconds that each stage of each request took."""

    def __init__(self) -> None:
        dedupe = DedupIndex(DedupOptions(entries_max=10**7, bytes_max=0, window_us=10**15))
        dedupe.load_done()
        self.registry = Registry((LEDGER,))
        self.history = MemoryHistory((LEDGER,))
        executor = Executor(self.registry, ShardId(0), dedupe=dedupe, history=self.history)
        self.machine = Machine(executor, MsgpackSerializer(), DEFAULT_LIMITS, epoch=Epoch(1),
                               policy="sync", group_bytes_max=4 << 20)  # fmt: skip
        self.time = int(START)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(self, body: bytes) -> None:
        """One request, as an array of commands."""
        spent: dict[str, float] = defaultdict(float)
        last = start = time.process_time()

        def stage(name: str) -> None:
            nonlocal last
            now = time.process_time()
            spent[name] += now - last
            last = now

        machine = self.machine
        parsed = decode_batch(body, "msgpack", DEFAULT_LIMITS)
        stage("decode")
        intake = admit_all(self.registry, Client(), parsed, "msgpack")
        stage("admit")
        ticket = Ticket(len(intake.admitted), lambda _ticket: None)
        machine.accept(intake.admitted, ticket, 0, None)
        stage("accept")
        self.time += 1_000
        while (group := machine.form(Instant(self.time))) is not None:
            drafts = machine.take_unwritten()
            stage("form")
            machine.recorded(drafts)
            machine.committed(group)
            stage("recorded")
            done = False
            while not done:
                effects = machine.execute(group, UNITS_PER_TURN)
                stage("execute")
                for answer in effects.answers:
                    answer.ticket.put(answer.index, answer.reply)
                stage("deliver")
                done = effects.done
        replies = merge(parsed, intake, ticket)
        if any(reply.outcome != "accepted" for reply in replies):
            raise SystemExit("a command was not accepted")
        MSGPACK.encode(replies)
        stage("encode")
        self.history.payloads.clear()
        spent["all"] = last - start
        for name, seconds in spent.items():
            self.seconds[name].append(seconds)


def main() -> None:
    """Open the accounts, run the requests, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=("commands", "batch"), default="batch")
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=60)
    options = parser.parse_args(
        namespace=argparse.Namespace(accounts=10_000, seed=3, run="r", book=load.BOOK)
    )
    stages = Stages()
    for first in range(0, options.accounts, 1_000):
        accounts = [{"id": f"a{n}", "asset": "USD/2", "min_balance": None}
                    for n in range(first, first + 1_000)]  # fmt: skip
        opening = {"type": "ledger.open_accounts", "key": load.BOOK, "id": f"o{first}",
                   "data": {"accounts": accounts}}  # fmt: skip
        stages.run(msgspec.msgpack.encode([opening]))
    bodies = load.payloads(options)
    if options.shape == "commands" or options.items == 1:
        bodies = [b"\x91" + body for body in bodies]
    gc.collect()
    gc.freeze()
    for number, body in enumerate(bodies):
        if number == WARM_UP:
            stages.seconds.clear()
        stages.run(body)
    for name, seconds in stages.seconds.items():
        seconds.sort()
        median, tenth = statistics.median(seconds), seconds[len(seconds) // 10]
        print(f"{name:10} median {median / options.items * 1e6:7.3f} us, "
              f"best tenth {tenth / options.items * 1e6:7.3f} us")  # fmt: skip


if __name__ == "__main__":
    main()
