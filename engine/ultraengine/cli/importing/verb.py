"""`ultra import FILE --map MAPPING`: turn the rows of a table into commands."""

import argparse
import time
from pathlib import Path

import msgspec

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.importing.journal import Counts
from ultraengine.cli.importing.mapping import Mapping, MappingErrors, read_mapping
from ultraengine.cli.importing.plan import Planner, Window
from ultraengine.cli.importing.run import Job, Step, TooManyRejected, run_import, text_of
from ultraengine.cli.importing.table import read_rows
from ultraengine.cli.output import Progress, plural, print_facts, print_json, say
from ultraengine.client import ClientError

PATIENCE_S = 300.0
SHOWN_COMMANDS = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("file", type=Path, help="the table: CSV or columns between whitespace")
    parser.add_argument(
        "--map", type=Path, required=True, metavar="MAPPING", help="what a row means (TOML)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read everything, show the first rows, send nothing"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="rows that were not booked (NAME-report.jsonl)"
    )
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="where it got to (NAME-journal.json)"
    )
    parser.add_argument(
        "--attempt",
        type=int,
        default=1,
        metavar="N",
        help="rejections are remembered; a higher number has rejected rows decided anew",
    )
    parser.add_argument(
        "--rejected-max",
        type=int,
        default=1_000,
        metavar="N",
        help="stop after so many bad and rejected rows, 0 = never (%(default)s)",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Ids come from the file, so importing again changes nothing, and after an interruption\n"
        "the same command line goes on. Mapping files: docs/import.md. Ends with 1 when rows\n"
        "were bad or rejected; the report names their lines."
    )
    add_connection(parser, timeout_s=PATIENCE_S)


def run(options: argparse.Namespace) -> int:
    """Import, or show what would be imported."""
    mapping = _read_mapping(options.map)
    started = time.monotonic()
    try:
        counts = _dry_run(options, mapping) if options.dry_run else _import(options, mapping)
    except OSError as error:
        raise CommandFailed(str(error)) from error
    seconds = time.monotonic() - started
    failed = counts.bad + counts.rejected
    if options.output == "json":
        facts = {**msgspec.structs.asdict(counts), "seconds": round(seconds, 3)}
        print_json({"name": mapping.name, "dry_run": options.dry_run, **facts})
    else:
        _print_summary(options, mapping, counts, seconds)
    return Exit.FINDINGS if failed else Exit.OK


def _read_mapping(path: Path) -> Mapping:
    try:
        return read_mapping(path.read_bytes())
    except OSError as error:
        raise CommandFailed(f"cannot read the mapping: {error}") from error
    except MappingErrors as errors:
        raise CommandFailed("\n  ".join([f"{path}:", *errors.mistakes])) from errors


def _import(options: argparse.Namespace, mapping: Mapping) -> Counts:
    job = Job(
        file=options.file,
        mapping=mapping,
        url=options.url,
        report=options.report or Path(f"{mapping.name}-report.jsonl"),
        journal=options.journal or Path(f"{mapping.name}-journal.json"),
        attempt=options.attempt,
        rejected_max=options.rejected_max,
    )
    options.report = job.report
    total = options.file.stat().st_size
    started = time.monotonic()
    with connect(options) as client, Progress(f"import {mapping.name}") as progress:

        def show(step: Step) -> None:
            rate = step.counts.rows / max(time.monotonic() - started, 1e-9)
            note = f"{plural(step.counts.rows, 'row')}, {rate:,.0f}/s"
            progress.update(step.bytes_done, total, note)

        try:
            return run_import(client, job, show)
        except ClientError as error:
            failed = failure(error, options)
            failed.advice += " The same command line goes on where this one stopped."
            raise failed from error
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        except TooManyRejected as error:
            raise CommandFailed(
                f"stopped: {error}",
                advice=f"See {job.report}; correct the mapping, or allow more (--rejected-max).",
                code=Exit.FINDINGS,
            ) from error


def _dry_run(options: argparse.Namespace, mapping: Mapping) -> Counts:
    counts = Counts()
    with options.file.open("rb") as raw, text_of(raw, mapping) as stream:
        for window in Planner(mapping).windows(read_rows(stream, mapping.table)):
            if window.number == 0 and options.output == "text":
                _show_first(window)
            counts.rows += window.rows
            counts.booked += sum(len(command.parts) for command in window.commands)
            counts.prepared += sum(len(command.parts) for command in window.needs)
            for row in window.aside:
                setattr(counts, row.kind, getattr(counts, row.kind) + 1)
                if row.kind == "bad":
                    say(f"line {row.line}: {row.reason}")
    return counts


def _show_first(window: Window) -> None:
    for command in (*window.needs[:SHOWN_COMMANDS], *window.commands[:SHOWN_COMMANDS]):
        first = command.parts[0]
        shown = {command.items: [first.value]} if command.items else {}
        print(f"line {first.line}: {command.type}, key {command.key}, id {command.id}")
        print_json({**command.base, **shown})


def _print_summary(
    options: argparse.Namespace, mapping: Mapping, counts: Counts, seconds: float
) -> None:
    title = f"{options.file.name} as {mapping.name}"
    print(f"{title}, not sent (dry run)" if options.dry_run else f"{title}, {seconds:.1f} s")
    print_facts(
        {
            "  rows read": f"{counts.rows:,}",
            "  booked": f"{counts.booked:,}",
            "  booked before": f"{counts.already:,}",
            "  skipped by rule": f"{counts.skipped:,}",
            "  bad": f"{counts.bad:,}",
            "  rejected": f"{counts.rejected:,}",
            "  prerequisites": f"{counts.prepared:,}",
        }
    )
    if not options.dry_run and counts.skipped + counts.bad + counts.rejected:
        print(f"Rows that were not booked: {options.report}")
