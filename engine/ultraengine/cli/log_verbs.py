"""`ultra log …`: verify, read, replay, compare and mend the command log of a shard."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.directories import open_disk, open_secrets
from ultraengine.cli.domains import add_domains, import_extensions
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import (
    plural,
    print_facts,
    print_json,
    print_json_line,
    print_table,
    say,
)
from ultraengine.cli.status import shard_statuses
from ultraengine.client import ClientError
from ultraengine.log import tools
from ultraengine.log.damage import LogDamaged, LogError, LogInUse
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom

REPLAY_TIMEOUT_S = 3_600.0
HALTED = "halted"


def configure(parser: argparse.ArgumentParser) -> None:
    """The verbs below ``log``."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> Any:
        child = verbs.add_parser(name, help=summary, description=summary)
        child.set_defaults(action=action)
        return child

    def on_disk(child: Any) -> None:
        child.add_argument("directory", type=Path, help="data directory, or that of one shard")
        child.add_argument("--secrets", type=Path, help="directory with the keys")

    child = verb("verify", "Check every byte that counts, and say where it is wrong.", _verify)
    on_disk(child)
    child.add_argument("--from", type=int, default=0, dest="start", metavar="FRAME")
    child.add_argument("-o", "--output", choices=("text", "json"), default="text")

    child = verb("dump", "Print frames as JSON, one on each line.", _dump)
    on_disk(child)
    child.add_argument("--from", type=int, default=0, dest="start", metavar="FRAME")
    child.add_argument("--to", type=int, dest="end", metavar="FRAME", help="excluded")
    child.add_argument("--headers", action="store_true", help="without commands and outcomes")

    child = verb("diff", "Name the first frame in which two logs of one shard differ.", _diff)
    on_disk(child)
    child.add_argument("other", type=Path, help="the other log")
    child.add_argument("--other-secrets", type=Path, help="directory with the other log's keys")

    child = verb("repair", "Replace damaged frames by those of a good copy.", _repair)
    on_disk(child)
    child.add_argument("--good", type=Path, required=True, help="a good copy of the same shard")

    child = verb(
        "truncate", "End the log behind a frame; what follows is lost for good.", _truncate
    )
    on_disk(child)
    child.add_argument("--after", type=int, required=True, metavar="FRAME", help="-1 keeps none")
    child.add_argument(
        "--keep-broken",
        action="store_true",
        help="do it, with a copy of what is cut in broken/; without, only show what would be lost",
    )

    _configure_replay(verb("replay", "Replay the log of a directory, or decide it again.", _replay))

    child = verb("skip", "Have recovery leave out a command at which a shard has halted.", _skip)
    child.add_argument("--offset", type=int, required=True, help="as the halted shard names it")
    child.add_argument("--reason", required=True, help="kept in the log and in the audit trail")
    add_connection(child)


def _configure_replay(child: argparse.ArgumentParser) -> None:
    child.add_argument(
        "directory",
        type=Path,
        nargs="?",
        help="data directory, or that of one shard; without one a running engine is asked",
    )
    child.add_argument(
        "--validate", action="store_true", help="decide a range again and compare, change nothing"
    )
    child.add_argument("--from", type=int, dest="start", metavar="OFFSET", help="of --validate")
    child.add_argument("--to", type=int, dest="end", metavar="OFFSET", help="excluded")
    child.add_argument("--from-start", action="store_true", help="from the log alone, no snapshot")
    child.add_argument("--secrets", type=Path, help="directory with the keys (ULTRA_SECRETS)")
    child.add_argument("--archive", help="where the archive is (ULTRA_ARCHIVE)")
    add_domains(child)
    child.add_argument("-o", "--output", choices=("text", "json"), default="text")
    add_connection(child, timeout_s=REPLAY_TIMEOUT_S)


def run(options: argparse.Namespace) -> int:
    """Carry out the verb; errors of the log become messages and exit codes."""
    try:
        return int(options.action(options))
    except LogInUse as error:
        raise CommandFailed(str(error), code=Exit.IN_USE) from error
    except LogDamaged as error:
        raise CommandFailed(str(error), code=Exit.DAMAGED) from error
    except (LogError, OSError) as error:
        raise CommandFailed(str(error)) from error


def _verify(options: argparse.Namespace) -> int:
    report = tools.verify(
        open_disk(options.directory), open_secrets(options.secrets), from_sequence=options.start
    )
    if options.output == "json":
        print_json(_hex(report))
        return Exit.OK if report.ok else Exit.DAMAGED
    rows = [["segment", "bytes", "frames", "offsets", "state"]]
    rows += [
        [
            segment.path,
            f"{segment.used_bytes:,}",
            f"{segment.first_sequence}-{segment.end_sequence}",
            f"{segment.first_offset}-{segment.end_offset}",
            segment.verdict,
        ]
        for segment in report.segments
    ]
    print_table(rows, right=frozenset({1}))
    print()
    print_facts(
        {
            "frames below": report.end_sequence,
            "offsets below": report.end_offset,
            "outcomes below": report.recorded_end,
            "chain": report.chain,
            "torn bytes at the end": report.torn_bytes,
        }
    )
    for problem in report.problems:
        say(f"ultra: {problem.message}")
    print("good" if report.ok else f"DAMAGED: {plural(len(report.problems), 'problem')}")
    return Exit.OK if report.ok else Exit.DAMAGED


def _dump(options: argparse.Namespace) -> int:
    frames = tools.dump(
        open_disk(options.directory),
        open_secrets(options.secrets),
        from_sequence=options.start,
        to_sequence=options.end,
        payloads=not options.headers,
        codecs=() if options.headers else import_extensions().serializers,
    )
    for frame in frames:
        print_json_line(_hex(frame))
    return Exit.OK


def _diff(options: argparse.Namespace) -> int:
    found = tools.diff(
        open_disk(options.directory),
        open_disk(options.other),
        open_secrets(options.secrets),
        open_secrets(options.other_secrets or options.secrets),
    )
    if found is None:
        print("no difference")
        return Exit.OK
    print_facts(msgspec.structs.asdict(found))
    return Exit.FINDINGS


def _repair(options: argparse.Namespace) -> int:
    report = tools.repair(
        open_disk(options.directory),
        open_disk(options.good),
        clock=SystemClock(),
        random=SystemRandom(),
        secrets=open_secrets(options.secrets),
    )
    for segment in report.segments:
        kept = "there was no file"
        if segment.kept_as is not None:
            kept = f"the damaged file is {segment.kept_as}"
        print(
            f"{segment.path}: frames {segment.from_sequence} to {segment.to_sequence - 1} are from "
            f"the good copy; {kept}"
        )
    if report.mark_kept_as is not None:
        print(f"MARK was written anew; the old one is {report.mark_kept_as}")
    if not report.segments and report.mark_kept_as is None:
        print("nothing was damaged, nothing was changed")
    print(f"the log ends before frame {report.end_sequence}, offset {report.end_offset}")
    return Exit.OK


def _truncate(options: argparse.Namespace) -> int:
    disk, secrets = open_disk(options.directory), open_secrets(options.secrets)
    if not options.keep_broken:
        print_facts(msgspec.structs.asdict(tools.foresee(disk, options.after, secrets=secrets)))
        say("Nothing was changed. With --keep-broken this is lost for good, but for copies of it.")
        return Exit.FINDINGS
    report = tools.truncate(disk, options.after, clock=SystemClock(), secrets=secrets)
    print_facts(msgspec.structs.asdict(report))
    return Exit.OK


def _replay(options: argparse.Namespace) -> int:
    if options.start is not None and not options.validate:
        raise CommandFailed("--from belongs to --validate; a replay begins at a snapshot")
    if options.directory is not None:
        # Only this verb needs the engine's own parts: the others stay quick.
        from ultraengine.cli.replaying import replay_directory  # noqa: PLC0415

        return replay_directory(options)
    if not options.validate:
        raise CommandFailed(
            "a running engine can only be asked to --validate",
            advice="Name a data directory to replay its log.",
        )
    with connect(options) as client:
        try:
            answer = client.operate(
                "replay-validate", {"from_offset": options.start or 0, "to_offset": options.end}
            )
        except ClientError as error:
            raise failure(error, options) from error
    result = answer["result"]
    print_json(result)
    # A front has a report of each shard.
    reports = [result] if "equal" in result else list(result.values())
    return Exit.OK if all(report["equal"] for report in reports) else Exit.FINDINGS


def _skip(options: argparse.Namespace) -> int:
    with connect(options) as client:
        try:
            status = client.get("/admin/v1/status").value
            shards = shard_statuses(status)
            if (HALTED, options.offset) not in [
                (one["state"], one["applied_end"]) for one in shards
            ]:
                # An override of anything else would leave out what was executed and answered.
                stands = ", ".join(
                    f"{'the shard' if len(shards) == 1 else 'shard ' + str(one['shard'])} is "
                    f"{one['state']} at offset {one['applied_end']}"
                    for one in shards
                )
                raise CommandFailed(
                    stands or "no shard answers",
                    advice="Only the command at which a shard has halted can be skipped.",
                )
            answer = client.operate("skip", {"offset": options.offset, "reason": options.reason})
        except ClientError as error:
            raise failure(error, options) from error
    print_json(answer)
    say("Logged: the effect of this command is left out at the next start.")
    return Exit.OK


def _hex(value: Any) -> Any:
    """A report with its bytes as hexadecimal digits, for JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: _hex(member) for name, member in msgspec.structs.asdict(value).items()}
    if isinstance(value, dict):
        return {name: _hex(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_hex(member) for member in value]
    return value
