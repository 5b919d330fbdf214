"""A small program around `ultraengine.log.driver.Log`, to be hurt.

It is a program as `ultraengine.testing.process_faults` describes; names are frame sequences.
"""

import argparse
import hashlib
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from ultraengine.log.damage import LogError
from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine.testing.process_faults import BROKEN_PROMISE, CANNOT_START, FAILED
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom
from ultraengine_adapters.local.secrets import FileSecrets

IN_FLIGHT_MAX: Final = 3
RETRY_S: Final = 0.1


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def digest_of(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=8).hexdigest()


def opened(arguments: argparse.Namespace) -> Log:
    options = LogOptions(
        shard=ShardId(0),
        epoch=Epoch(1),
        handlers=b"handlers",
        limits=Limits(
            segment_bytes=arguments.segment_bytes,
            frame_bytes_max=arguments.segment_bytes // 4,
            reserve_bytes=arguments.reserve_bytes,
        ),
        compress=arguments.compress,
        master_key="disk" if arguments.encrypt else None,
        chain_key="chain" if arguments.encrypt else None,
    )
    keys = {"ULTRA_SECRET_DISK": "hex:" + "5a" * 32, "ULTRA_SECRET_CHAIN": "hex:" + "c4" * 32}
    disk = LocalDisk(arguments.data)
    return Log.open(disk, SystemClock(), SystemRandom(), FileSecrets(None, keys), options)


class Appender:
    """Forms frames, hands them to the log, and keeps the journal."""

    def __init__(self, log: Log, journal: Path, arguments: argparse.Namespace) -> None:
        self._log = log
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._bytes: int = arguments.bytes
        self._sync: bool = not arguments.no_sync
        self._run = os.urandom(4).hex()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._refused = False
        self._read_only = False
        self._refused_at = 0
        self._unrecorded: list[tuple[int, int]] = []
        self._restart(log.recovered.end_sequence, log.recovered.end_offset)
        self._time = int(log.recovered.last_time)

    def append_group(self) -> None:
        """One COMMANDS frame, with the OUTCOMES of the groups before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight < IN_FLIGHT_MAX or self._refused)
            if self._refused:
                self._changed.wait_for(lambda: self._in_flight == 0)
                self._recover_from_refusal()
                return
            self._in_flight += 1
        self._time = max(self._time, int(SystemClock().now()))
        recorded, self._unrecorded = self._unrecorded, []
        shapes = [(FrameKind.OUTCOMES, *group) for group in recorded]
        count = 1 + self._sequence % 7
        shapes.append((FrameKind.COMMANDS, self._offset, count))
        drafts, facts = [], []
        for kind, base, number in shapes:
            payload = self._payload()
            drafts.append(FrameDraft(kind, base, number, self._time, payload))
            facts.append(f"{self._sequence} {digest_of(payload)}\n")
            self._sequence += 1
        self._unrecorded.append((self._offset, count))
        self._offset += count
        self._note("".join(f"I {fact}" for fact in facts))
        self._log.write(drafts, lambda w, f=tuple(facts): self._done(w, f), sync=self._sync)  # type: ignore[misc]

    def finish(self) -> None:
        """Wait for everything handed to the log."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0)

    def _done(self, written: Written, facts: Sequence[str]) -> None:
        if written.error is None:
            self._note("".join(f"A {fact}" for fact in facts))
        with self._changed:
            self._in_flight -= 1
            if written.error is not None:
                self._refused = True
                self._refused_at = written.end_sequence
            elif self._read_only:
                self._read_only = False
                self._note("W\n")
            self._changed.notify_all()

    def _recover_from_refusal(self) -> None:
        if not self._read_only:
            self._read_only = True
            self._note("R\n")
        self._refused = False
        time.sleep(RETRY_S)
        frames = self._log.reader().frames(0)
        commands = [f.header for f in frames if f.header.kind == FrameKind.COMMANDS]
        self._restart(self._refused_at, commands[-1].offset_end if commands else 0)

    def _restart(self, sequence: int, offset: int) -> None:
        """Go on behind what is in the log."""
        self._sequence, self._offset = int(sequence), int(offset)
        recorded, groups = 0, []
        for frame in self._log.reader().frames(0):
            if frame.header.kind == FrameKind.COMMANDS:
                groups.append((int(frame.header.base_offset), frame.header.count))
            else:
                recorded = int(frame.header.offset_end)
        self._unrecorded = [group for group in groups if group[0] >= recorded]

    def _payload(self) -> bytes:
        name = f"{self._run}:{self._sequence}:".encode()
        noise = hashlib.shake_128(name).digest(self._bytes // 2)
        return name + noise + bytes(self._bytes // 2)

    def _note(self, text: str) -> None:
        os.write(self._journal, text.encode())


def append(arguments: argparse.Namespace) -> int:
    log = opened(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def failed(error: BaseException) -> NoReturn:
        # From the log's own thread: nothing may be acknowledged after this.
        say(f"the log failed: {error!r}")
        os._exit(FAILED)

    log.start(failed)
    appender = Appender(log, arguments.journal, arguments)
    say(f"recovered {log.recovered.end_sequence}")
    for _ in range(arguments.groups):
        if stop.is_set():
            break
        appender.append_group()
    appender.finish()
    log.close(clean=True)
    return 0


def lines(journal: Path) -> Iterator[list[str]]:
    if journal.exists():
        yield from (line.split() for line in journal.read_text().splitlines())


def verify(arguments: argparse.Namespace) -> int:
    issued: defaultdict[int, set[str]] = defaultdict(set)
    acknowledged: dict[int, str] = {}
    for kind, *rest in lines(arguments.journal):
        if kind == "I":
            issued[int(rest[0])].add(rest[1])
        elif kind == "A" and acknowledged.setdefault(int(rest[0]), rest[1]) != rest[1]:
            say(f"frame {rest[0]} was acknowledged with two contents")
            return BROKEN_PROMISE
    log = opened(arguments)
    found = {int(f.header.sequence): digest_of(f.payload) for f in log.reader().frames(0)}
    log.close(clean=False)
    lost = [n for n, digest in acknowledged.items() if found.get(n) != digest]
    invented = [n for n, digest in found.items() if digest not in issued[n]]
    gaps = sorted(set(range(len(found))) - set(found))
    say(f"found {len(found)} acknowledged {len(acknowledged)}")
    for what, numbers in (("lost", lost), ("invented", invented), ("missing", gaps)):
        if numbers:
            say(f"{what}: frames {numbers[:10]}")
    if len(found) != int(log.recovered.end_sequence):
        say(f"{log.recovered.end_sequence} frames recovered")
        return BROKEN_PROMISE
    return BROKEN_PROMISE if lost or invented or gaps else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["append", "verify"])
    parser.add_argument("data", type=Path)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--groups", type=int, default=1 << 30)
    parser.add_argument("--bytes", type=int, default=300)
    parser.add_argument("--segment-bytes", type=int, default=64 * 1024)
    parser.add_argument("--reserve-bytes", type=int, default=64 * 1024)
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--encrypt", action="store_true")
    parser.add_argument("--no-sync", action="store_true")
    arguments = parser.parse_args()
    try:
        return append(arguments) if arguments.mode == "append" else verify(arguments)
    except (LogError, OSError) as error:
        say(f"{type(error).__name__}: {error}")
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
