"""`ultra doctor`: examine this machine, a data directory and a running engine."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ultraengine.cli.checks import (
    Check,
    attempt,
    check_domains,
    check_flush,
    check_log,
    check_machine,
    check_memory,
    check_snapshots,
    check_space,
)
from ultraengine.cli.connection import add_connection, connect
from ultraengine.cli.directories import open_disk, open_secrets, shard_directory
from ultraengine.cli.domains import add_domains, import_domains, import_extensions
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_json
from ultraengine.cli.status import WELL
from ultraengine.client import ClientError, Unreachable
from ultraengine.main import SWITCH_INTERVAL_S
from ultraengine.model.limits import DEFAULT_LIMITS

DEFAULT_DATA = Path("ultra-data")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        help="data directory, or that of one shard (ultra-data, when it is there)",
    )
    parser.add_argument("--secrets", type=Path, help="directory with the keys")
    add_domains(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Changes nothing, and may examine the directory of a running engine.\n"
        "Ends with 1 when a check failed; a warning is not a failure."
    )
    add_connection(parser, timeout_s=3.0)


def run(options: argparse.Namespace) -> int:
    """Examine and report."""
    directory = options.directory
    if directory is None and DEFAULT_DATA.is_dir():
        directory = DEFAULT_DATA
    checks = []
    for check in _examine(options, directory):
        checks.append(check)
        if options.output == "text":
            _show(check)
    if options.output == "json":
        print_json(checks)
    elif directory is None:
        print("      (no data directory was named: see 'ultra doctor --help')")
    failed = any(check.grade == "fail" for check in checks)
    return Exit.FINDINGS if failed else Exit.OK


def _show(check: Check) -> None:
    print(f"{check.grade:<4}  {check.name:<16} {check.finding}", flush=True)
    if check.advice:
        print(f"      {'':<16} {check.advice}", flush=True)


def _examine(options: argparse.Namespace, directory: Path | None) -> Iterator[Check]:
    yield from check_machine(SWITCH_INTERVAL_S)
    if directory is not None:
        yield from _examine_data(options, directory)
    engine = _examine_engine(options)
    if engine is not None:
        yield engine


def _examine_data(options: argparse.Namespace, directory: Path) -> Iterator[Check]:
    domains, extensions = import_domains(options.domain), import_extensions()
    shard = shard_directory(directory)
    disk, secrets = open_disk(shard), open_secrets(options.secrets)
    yield check_flush(shard)
    yield check_space(shard, DEFAULT_LIMITS)
    log = attempt("log", lambda: check_log(disk, secrets))
    yield log
    yield attempt("snapshots", lambda: check_snapshots(disk, secrets, extensions))
    if log.grade != "fail":
        check, state = check_domains(disk, secrets, domains, extensions)
        yield check
        if state is not None:
            yield check_memory()


def _examine_engine(options: argparse.Namespace) -> Check | None:
    """A running engine's own word; None when none answers, which is no illness."""
    try:
        with connect(options) as client:
            status = client.get("/admin/v1/status").value
    except Unreachable:
        return None
    except ClientError as error:
        return Check("engine", "warn", f"{options.url}: {error}", error.advice)
    finding = f"{options.url} is {status['state']}"
    if status["state"] not in WELL:
        reason = status.get("reason") or "no reason given"
        return Check("engine", "fail", f"{finding}: {reason}", "See its log.")
    if status.get("alarms"):
        return Check("engine", "warn", f"{finding}, {status['alarms']} alarms", "See its log.")
    if missing := missing_copies(status):
        return Check(
            "engine", "warn", f"{finding}, {missing}", "See 'ultra status' and their logs."
        )
    return Check("engine", "ok", finding)


def missing_copies(status: Mapping[str, Any]) -> str:
    """What is wrong with the other copies of a leader, in words; empty when nothing is."""
    found = []
    for one in status.get("followers") or ():
        if one["barred"]:
            found.append(f"copy {one['replica']} executes differently")
        elif not one["in_sync"]:
            found.append(f"copy {one['replica']} is not in sync")
    if found and len(status["in_sync"]) <= status["min_isr"]:
        found.append("one more loss stops commands")
    return ", ".join(found)
