"""What `ultra doctor` looks at: each check returns a verdict, a finding and advice.

Checks measure or read; none of them changes anything but a small file that is removed again.
"""

import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import google_crc32c
import msgspec

from ultraengine import compiled
from ultraengine.cli.offline import LoadedState, load_state
from ultraengine.extensions import NONE, Extensions
from ultraengine.log import tools as log_tools
from ultraengine.model.domain import Domain
from ultraengine.model.limits import MIB, Limits
from ultraengine.ports import Disk, Secrets
from ultraengine.snapshot import tools as snapshot_tools
from ultraengine.snapshot.codec import Codecs

Grade = Literal["ok", "warn", "fail"]

FLUSHES: Final = 40
FLUSH_BYTES: Final = 4096
FLUSH_SLOW_S: Final = 0.010
"""A flush that takes longer bounds what one client can do to less than 100 commands/s."""
FLUSH_UNBELIEVABLE_S: Final = 0.000_02
"""No disk is this fast: the device acknowledges from memory that a power cut may empty."""
HAND_OFF_S: Final = 0.3
HAND_OFF_SLOW_S: Final = 0.002
SNAPSHOT_HEAP_FACTOR: Final = 2.2
"""Memory that a forked snapshot needs at its worst, relative to the heap (measured)."""
_MEMORY_FILES: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Check(msgspec.Struct, frozen=True):
    """The result of one check."""

    name: str
    grade: Grade
    finding: str
    advice: str = ""


def check_python() -> Check:
    """The interpreter is one that the engine is tested with."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.flags.optimize:
        return Check("python", "warn", f"{version}, with -O", "Run it without -O.")
    return Check("python", "ok", f"{sys.implementation.name} {version}")


def check_crc32c() -> Check:
    """Checksums of the log are computed by the processor, not by Python."""
    kind = google_crc32c.implementation
    if kind == "c":
        return Check("crc32c", "ok", "compiled")
    return Check(
        "crc32c",
        "fail",
        f"implementation {kind!r}, about a thousand times slower",
        "Install a wheel of google-crc32c for this platform, or its C library and a compiler.",
    )


def check_compiled(absent: Sequence[str]) -> Check:
    """The hot path is compiled.  `absent`: parts that are not (`ultraengine.compiled.absent`)."""
    if not absent:
        return Check("compiled parts", "ok", "all there")
    return Check(
        "compiled parts",
        "warn",
        f"{', '.join(absent)} absent: the same results, at two to three times the processor time",
        "Unset ULTRA_PURE, or install gcc and the headers of Python and install the engine again.",
    )


def check_hand_off(interval_s: float, seconds: float = HAND_OFF_S) -> Check:
    """A sleeping thread wakes soon while another computes: the flush thread's life.

    `interval_s`: the interpreter's switch interval that the engine sets for itself.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval_s)
    stop = threading.Event()
    thread = threading.Thread(target=_compute, args=(stop,), daemon=True)
    late = []
    try:
        thread.start()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            time.sleep(0.001)
            late.append(time.perf_counter() - started - 0.001)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    middle = statistics.median(late)
    finding = f"{middle * 1e3:.2f} ms late in the middle, switch interval {interval_s * 1e3:g} ms"
    if middle <= HAND_OFF_SLOW_S:
        return Check("thread hand-off", "ok", finding)
    return Check(
        "thread hand-off", "warn", finding, "The processor is busy or throttled: give it a core."
    )


def _compute(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1_000))


def check_flush(directory: Path) -> Check:
    """How long the disk takes to make a small write durable."""
    path = directory / f".doctor-{os.getpid()}"
    try:
        took = _flush_times(path)
    except OSError as error:
        return Check("disk flush", "fail", str(error), "Make the directory writable.")
    finally:
        path.unlink(missing_ok=True)
    middle, worst = statistics.median(took), max(took)
    finding = f"{middle * 1e3:.2f} ms in the middle, {worst * 1e3:.2f} ms at worst"
    if middle > FLUSH_SLOW_S:
        advice = "Use a disk with a write cache that survives power loss, or an SSD."
        return Check("disk flush", "warn", finding, advice)
    if middle < FLUSH_UNBELIEVABLE_S:
        advice = (
            "Nothing here survives a power cut (tmpfs, or a disk that lies); keep data on another."
        )
        return Check("disk flush", "warn", finding, advice)
    return Check("disk flush", "ok", finding)


def _flush_times(path: Path) -> list[float]:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, bytes(FLUSH_BYTES * FLUSHES), 0)
        os.fsync(descriptor)
        took = []
        for number in range(FLUSHES):
            os.pwrite(descriptor, os.urandom(FLUSH_BYTES), number * FLUSH_BYTES)
            started = time.perf_counter()
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - started)
        return took
    finally:
        os.close(descriptor)


def check_space(directory: Path, limits: Limits) -> Check:
    """Room for the next segments and the reserve of a clean stop."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    needed = limits.segment_bytes * (limits.segments_prepared + 1) + limits.reserve_bytes
    finding = f"{free / MIB:,.0f} MiB free, {needed / MIB:,.0f} MiB needed for the next segments"
    if free < needed:
        return Check("free space", "fail", finding, "Free space, or the shard turns read-only.")
    if free < 10 * needed:
        return Check("free space", "warn", finding, "Snapshots and log share it: watch it.")
    return Check("free space", "ok", finding)


def check_log(disk: Disk, secrets: Secrets) -> Check:
    """Every byte of the log that counts."""
    report = log_tools.verify(disk, secrets)
    if not report.ok:
        first = report.problems[0]
        return Check("log", "fail", first.message, "See 'ultra log verify' and 'ultra log repair'.")
    finding = f"good: {report.end_offset:,} offsets in {len(report.segments)} segments"
    if report.torn_bytes:
        finding += f", {report.torn_bytes} torn bytes that the next start puts aside"
    return Check("log", "ok", finding)


def check_snapshots(disk: Disk, secrets: Secrets, extensions: Extensions = NONE) -> Check:
    """Every listed snapshot from its first to its last byte."""
    codecs = Codecs(extensions.snapshot_codecs)
    reader = snapshot_tools.Tools(disk=disk, secrets=secrets, codecs=codecs)
    found = snapshot_tools.verify(reader)
    bad = [verdict for verdict in found.verdicts if verdict.problem is not None]
    if not bad:
        count = len(found.verdicts)
        return Check("snapshots", "ok", f"{count} listed, all good" if count else "none taken yet")
    finding = "; ".join(f"{verdict.entry.file}: {verdict.problem}" for verdict in bad)
    grade: Grade = "warn" if found.usable_end is not None else "fail"
    return Check("snapshots", grade, finding, "Take a new one: POST /admin/v1/snapshot.")


def check_domains(
    disk: Disk, secrets: Secrets, domains: Sequence[Domain], extensions: Extensions = NONE
) -> tuple[Check, LoadedState | None]:
    """The domains' own invariants, over the state that snapshot and log give."""
    try:
        state = load_state(disk, secrets, domains, extensions)
    except Exception as error:  # noqa: BLE001  (whatever it is, a start would fail on it too)
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        finding = f"{type(error).__name__}: {error}{cause}"
        return Check("domains", "fail", finding, "A start would fail in the same way."), None
    broken = list(state.executor.check())
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        finding = f"{broken[0]}{more}"
        return Check("domains", "fail", finding, "Stop it and ask for help: this is a bug."), state
    names = ", ".join(domain.name for domain in domains)
    finding = (
        f"{names}: all invariants hold at offset {state.executor.applied_end:,} "
        f"(snapshot to {state.snapshot_end:,}, then {state.replayed:,} commands)"
    )
    return Check("domains", "ok", finding), state


def check_memory() -> Check:
    """Room for a forked snapshot of a state as large as the one that was just loaded."""
    heap = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit = memory_limit()
    needed = int(heap * SNAPSHOT_HEAP_FACTOR)
    finding = (
        f"{heap / MIB:,.0f} MiB with this state; a snapshot may need {needed / MIB:,.0f} MiB "
        f"of {limit / MIB:,.0f} MiB"
    )
    if needed <= limit:
        return Check("memory", "ok", finding)
    advice = "Give it more memory, or take snapshots cooperatively (ULTRA_SNAPSHOT_MODE)."
    return Check("memory", "fail", finding, advice)


def memory_limit(files: Sequence[Path] = _MEMORY_FILES) -> int:
    """Bytes that this process may use: the control group's limit, or the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(machine, int(text))
    return machine


def attempt(name: str, check: Callable[[], Check]) -> Check:
    """A check whose own failure is a finding, not the end of the examination."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001  (a doctor does not faint)
        return Check(name, "fail", f"{type(error).__name__}: {error}")


def check_machine(interval_s: float) -> Iterator[Check]:
    """All checks that need no data."""
    yield check_python()
    yield check_crc32c()
    yield check_compiled(compiled.absent())
    yield attempt("thread hand-off", lambda: check_hand_off(interval_s))
