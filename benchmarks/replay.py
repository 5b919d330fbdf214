"""Processor time of replaying recorded one-transfer commands, with and without the lane.

    python benchmarks/replay.py DIRECTORY [--rounds 5]

The directory is that of a shard which has opened accounts and then booked transfers; it is only
read.  Each run replays the whole log into an empty state with ids and history (in a temporary
directory), and counts from the first transfer on: reading and checking frames, decoding,
evolving, remembering ids, history.  Runs alternate, A before B and then B before A.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ultraengine.cli.directories import open_disk, open_secrets
from ultraengine.domains.ledger import Ledger
from ultraengine.execution.dedup import DedupIndex, DedupOptions
from ultraengine.execution.executor import Executor
from ultraengine.execution.history_files.driver import HistoryFile
from ultraengine.execution.registry import Registry
from ultraengine.log.reader import RecordedGroup
from ultraengine.log.standing import standing_log
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.shard.image import ExecutorImage
from ultraengine.shard.recovery import recover
from ultraengine.snapshot.image import state_hash
from ultraengine_adapters.local.disk import LocalDisk

TRANSFERS = "ledger.create_transfers"


class Plain(Ledger):
    """The ledger whose recorded events are evolved one by one."""

    commands: Final = tuple(
        msgspec.structs.replace(spec, recorded=None) for spec in Ledger.commands
    )


class Timed:
    """Groups, and when the first transfer came."""

    def __init__(self, groups: Iterable[RecordedGroup]) -> None:
        self._groups = groups
        self.commands = 0
        self.started = 0.0

    def __iter__(self) -> Iterator[RecordedGroup]:
        for group in self._groups:
            if not self.started and group.commands[-1].type.startswith(TRANSFERS):
                self.started = time.process_time()
            self.commands += group.header.count if self.started else 0
            yield group


def replay(directory: Path, domain: Ledger) -> tuple[float, str]:
    """(microseconds of processor time per command, state hash)."""
    disk, registry = open_disk(directory), Registry([domain])
    log = standing_log(disk, open_secrets(None), threading.Lock())
    own = DedupOptions.of(DEFAULT_LIMITS)
    dedupe = DedupIndex(
        msgspec.structs.replace(own, entries_max=own.entries_total_max, bytes_max=0)
    )
    with tempfile.TemporaryDirectory() as scratch:
        history = HistoryFile(LocalDisk(Path(scratch)), log.identity.shard, registry.decoders)
        history.truncate_to(0, 0)
        executor = Executor(registry, log.identity.shard, dedupe=dedupe, history=history)
        dedupe.load_done()
        groups = Timed(log.reader.groups(0))
        recover(executor, groups, any_handlers=True)
        history.flush()
        spent = time.process_time() - groups.started
        history.close()
    found = state_hash(ExecutorImage(executor, dedupe).sections(full=True))
    return spent / groups.commands * 1e6, found.hex()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ratios, times, hashes = [], {Plain: [], Ledger: []}, set()
    for turn in range(options.rounds):
        order = (Plain, Ledger) if turn % 2 == 0 else (Ledger, Plain)
        for kind in order:
            spent, found = replay(options.directory, kind())
            times[kind].append(spent)
            hashes.add(found)
        ratios.append(times[Ledger][-1] / times[Plain][-1])
    if len(hashes) != 1:
        raise SystemExit(f"the states differ: {hashes}")
    plain, lane = (statistics.median(times[kind]) for kind in (Plain, Ledger))
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"us per command: one by one {plain:.2f}, lane {lane:.2f}")
    print(f"ratio: {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
