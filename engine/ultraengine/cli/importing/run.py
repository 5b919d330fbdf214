"""Carries out an import: reads, sends window by window, reports, and resumes.

A window's prerequisites are answered before its rows leave, and a window is answered before
the next one; then the journal moves on.  Stopped at any moment, the same command line goes
on where it was, and sending something twice changes nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ultraengine.cli.importing.journal import (
    Counts,
    Journal,
    read_journal,
    remove_journal,
    write_journal,
)
from ultraengine.cli.importing.mapping import Mapping
from ultraengine.cli.importing.plan import WINDOW_ROWS, Planned, Planner, SetAside, Window
from ultraengine.cli.importing.table import read_rows
from ultraengine.cli.importing.verdict import judge, malformed_row
from ultraengine.client import NewCommand, Reply, SyncClient

_CHUNK_BYTES: Final = 1 << 20


class TooManyRejected(Exception):
    """More rows were set aside than the caller wants to see: the mapping is probably wrong."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One import."""

    file: Path
    mapping: Mapping
    url: str
    report: Path
    """Rows that were not booked, one JSON document on each line."""
    journal: Path
    attempt: int = 1
    rejected_max: int = 1_000
    """Bad and rejected rows before it stops; 0 = no limit."""
    window_rows: int = WINDOW_ROWS
    """Rows between two entries of the journal."""


class Step(msgspec.Struct, frozen=True):
    """How far an import is."""

    line: int
    bytes_done: int
    counts: Counts


def source_digest(job: Job) -> str:
    """Names this import: content of the file, mapping, attempt, engine."""
    digest = hashlib.blake2b(digest_size=16)
    with job.file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    facts = (job.mapping.digest, job.attempt, job.url, job.window_rows)
    digest.update(msgspec.msgpack.encode(facts))
    return digest.hexdigest()


def run_import(client: SyncClient, job: Job, progress: Callable[[Step], None]) -> Counts:
    """Book everything that is not booked yet; returns what became of the rows.

    Raises OSError for files, `ClientError` when the engine does not answer in time (then the
    same command line goes on later), `TooManyRejected`.
    """
    source = source_digest(job)
    before = read_journal(job.journal, source)
    if before is not None and not _is_known(client, before):
        before = None
    with (
        job.report.open("ab") as report,
        job.file.open("rb") as raw,
        text_of(raw, job.mapping) as stream,
    ):
        report.truncate(before.report_bytes if before else 0)
        run = _Run(client, job, report, before.counts if before else Counts())
        planner = Planner(job.mapping, attempt=job.attempt, window_rows=job.window_rows)
        for window in planner.windows(read_rows(stream, job.mapping.table)):
            if before is None or window.number >= before.windows:
                run.window(planner, window)
                run.remember(source, window)
            progress(Step(window.last_line, raw.tell(), run.counts))
    remove_journal(job.journal)
    return run.counts


def text_of(raw: BinaryIO, mapping: Mapping) -> TextIOWrapper:
    """The file as text; bytes that are none become surrogates, which `read_rows` reports."""
    return TextIOWrapper(raw, encoding=mapping.table.encoding, errors="surrogateescape", newline="")


def _is_known(client: SyncClient, journal: Journal) -> bool:
    """Whether the engine holds the last command of the journal: it may be another one now."""
    if not journal.id:
        return False
    return client.outcome(id=journal.id, key=journal.key).state == "done"


class _Run:
    """One run: counts, the report, the last command."""

    def __init__(self, client: SyncClient, job: Job, report: BinaryIO, counts: Counts) -> None:
        self.counts = counts
        self._client = client
        self._job = job
        self._report = report
        self._last: Planned | None = None

    def window(self, planner: Planner, window: Window) -> None:
        """Send one window and judge the answers."""
        counts = self.counts
        counts.rows += window.rows
        aside = list(window.aside)
        for command, reply in self._send(planner, window.needs, aside):
            verdict = judge(command, reply, self._job.mapping.done)
            counts.prepared += verdict.booked + verdict.already
            aside += verdict.aside
        for command, reply in self._send(planner, window.commands, aside):
            verdict = judge(command, reply, self._job.mapping.done)
            counts.booked += verdict.booked
            counts.already += verdict.already
            aside += verdict.aside
        for row in sorted(aside, key=lambda row: row.line):
            setattr(counts, row.kind, getattr(counts, row.kind) + 1)
            self._report.write(msgspec.json.encode(row) + b"\n")
        self._report.flush()
        limit = self._job.rejected_max
        if limit and counts.bad + counts.rejected > limit:
            raise TooManyRejected(f"{counts.bad + counts.rejected} rows were not accepted")

    def remember(self, source: str, window: Window) -> None:
        """Note that a window is through."""
        last = self._last
        journal = Journal(
            source=source,
            windows=window.number + 1,
            key=last.key if last else "",
            id=last.id if last else "",
            report_bytes=self._report.tell(),
            counts=self.counts,
        )
        write_journal(self._job.journal, journal)

    def _send(
        self, planner: Planner, commands: Sequence[Planned], aside: list[SetAside]
    ) -> list[tuple[Planned, Reply]]:
        """Send commands; an item whose shape is refused is set aside and the rest sent again."""
        answered: list[tuple[Planned, Reply]] = []
        todo = list(commands)
        while todo:
            replies = self._client.send_all(_as_command(command) for command in todo)
            again: list[Planned] = []
            for command, reply in zip(todo, replies, strict=True):
                index = judge(command, reply, self._job.mapping.done).malformed
                if index is None:
                    answered.append((command, reply))
                    if reply.outcome != "refused":
                        self._last = command
                    continue
                aside.append(malformed_row(command, reply, index))
                rest = planner.without(command, index)
                if rest is not None:
                    again.append(rest)
            todo = again
        return answered


def _as_command(command: Planned) -> NewCommand:
    return NewCommand(id=command.id, type=command.type, key=command.key, data=command.data)
