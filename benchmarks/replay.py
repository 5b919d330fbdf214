"""Processor time of replaying recorded one-transfer commands, with and without the lane.

    python benchmarks/replay.py DIRECTORY [--rounds 5] [--commands N]

The directory is that of a shard which has opened accounts, taken a snapshot (perhaps) and then
booked transfers; it is only read.  Each run verifies the tail and loads the newest snapshot, as a
start does, and then replays: reading and checking frames, decoding, evolving, remembering ids,
history (in a temporary directory).  Replay counts from the first transfer on.  Runs alternate, A
before B and then B before A.
"""

import argparse
import gc
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
from ultraengine.log.segment import KeyRing
from ultraengine.log.standing import standing_log
from ultraengine.log.survey import survey
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.shard.image import ExecutorImage
from ultraengine.shard.recovery import recover
from ultraengine.snapshot import tools as snapshots
from ultraengine.snapshot.codec import Codecs
from ultraengine.snapshot.image import state_hash
from ultraengine.snapshot.manifest import plan_load
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


class Spent(msgspec.Struct):
    """Processor seconds of one run, and the state that it reached."""

    verify: float
    load: float
    replay: float
    commands: int
    state_hash: str

    @property
    def all(self) -> float:
        """What a start takes, but for the interpreter's own."""
        return self.verify + self.load + self.replay


def replay(directory: Path, domain: Ledger, commands: int | None) -> Spent:
    """One run, of so many commands of the tail at least."""
    disk, secrets, registry = open_disk(directory), open_secrets(None), Registry([domain])
    reader = snapshots.Tools(disk=disk, secrets=secrets, codecs=Codecs())
    chain = plan_load(snapshots.listed(reader)) or ()
    started = time.process_time()
    survey(disk, KeyRing(secrets), verify_from=chain[-1].sequence_end if chain else 0)
    verified = time.process_time()
    log = standing_log(disk, secrets, threading.Lock())
    own = DedupOptions.of(DEFAULT_LIMITS)
    dedupe = DedupIndex(
        msgspec.structs.replace(own, entries_max=own.entries_total_max, bytes_max=0)
    )
    with tempfile.TemporaryDirectory() as scratch:
        history = HistoryFile(LocalDisk(Path(scratch)), log.identity.shard, registry.decoders)
        image = ExecutorImage(
            Executor(registry, log.identity.shard, dedupe=dedupe, history=history), dedupe
        )
        position = None
        loading = time.process_time()
        for entry in chain:
            position = snapshots.load(reader, image, entry)
        image.mark()
        executor = image.resume(position)
        loaded = time.process_time()
        history.truncate_to(0, executor.applied_end)
        start = executor.applied_end
        end = None if commands is None else start + commands
        groups = Timed(log.reader.groups(start, end))
        recover(executor, groups, any_handlers=True)
        history.flush()
        ended = time.process_time()
        history.close()
    return Spent(
        verified - started,
        loaded - loading,
        ended - groups.started,
        groups.commands,
        state_hash(image.sections(full=True)).hex(),
    )


def median(spent: list[Spent], part: str) -> float:
    """Of one part of all runs."""
    return statistics.median(getattr(one, part) for one in spent)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, help="of the tail (all)")
    options = parser.parse_args()
    runs: dict[type[Ledger], list[Spent]] = {Plain: [], Ledger: []}
    for turn in range(options.rounds):
        for kind in (Plain, Ledger) if turn % 2 == 0 else (Ledger, Plain):
            runs[kind].append(replay(options.directory, kind(), options.commands))
            print(kind.__name__, runs[kind][-1], flush=True)
            gc.collect()
    if len({one.state_hash for spent in runs.values() for one in spent}) != 1:
        raise SystemExit("the states differ")
    pairs = list(zip(runs[Ledger], runs[Plain], strict=True))
    for name, kind in (("one by one", Plain), ("lane", Ledger)):
        spent = runs[kind]
        per_command = median(spent, "replay") / spent[0].commands * 1e6
        print(
            f"{name}: replay {per_command:.2f} us per command; seconds: "
            f"verify {median(spent, 'verify'):.2f}, load {median(spent, 'load'):.2f}, "
            f"replay {median(spent, 'replay'):.2f}, all {median(spent, 'all'):.2f}"
        )
    for part in ("replay", "all"):
        ratios = sorted(getattr(lane, part) / getattr(plain, part) for lane, plain in pairs)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(f"ratio of {part}: {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
