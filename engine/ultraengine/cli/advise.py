"""`ultra advise`: indexes and tables that recorded queries ask for, tried before they are made."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_type_hints

import aiohttp
import msgspec

from ultraengine.advice.database import Database, Held, Refused
from ultraengine.advice.driver import (
    look,
    open_database,
    serving,
    try_all,
    try_specialised,
)
from ultraengine.advice.policy import AUTO, Admitted, Policy, admitted, of_limits, parse
from ultraengine.advice.recorder import REPORT_VERSION, Report
from ultraengine.advice.specialise import Specialised, specialise
from ultraengine.advice.suggest import LeftOut, suggest
from ultraengine.advice.trial import SpecialTrial, Trial, TrialFailed, Verdict
from ultraengine.cli.connection import KEY_VARIABLE
from ultraengine.cli.domains import add_domains, import_domains
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.output import plural, print_json, print_table, say
from ultraengine.cli.projecting import carry_out, read_url
from ultraengine.model.errors import InvariantBroken, Malformed
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS, AdviceLimits
from ultraengine.model.projection import Projection
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.query.advised import RouteAsker
from ultraengine.query.main import routes_of
from ultraengine.query.readers.factory import open_reader
from ultraengine_adapters.local.clock import SystemClock

PATTERNS: Final = "/admin/v1/patterns"
FETCH_S: Final = 30.0
COUNTS: Final = ("copy_rows_max", "examples", "rounds", "write_rows")
"""Limits that a trial cannot do without."""


class Applied(msgspec.Struct, frozen=True):
    """An index that was made."""

    name: str
    table: str
    columns: tuple[str, ...]
    how: str


class Advised(msgspec.Struct, frozen=True):
    """All that one run has found."""

    trials: tuple[Trial, ...]
    specialised: tuple[Specialised, ...]
    special_trials: tuple[SpecialTrial, ...]
    """In their order."""
    left_out: tuple[LeftOut, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "report", nargs="?", type=Path, metavar="REPORT", help="file that 'ultra query' has kept"
    )
    parser.add_argument(
        "--query-url", metavar="URL", help="a running 'ultra query', in place of the file"
    )
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE",
        help=f"file with an API key of the scope admin (else ${KEY_VARIABLE}, else none)",
    )  # fmt: skip
    parser.add_argument(
        "--target", required=True, metavar="URL",
        help="the database: sqlite:///PATH or postgresql://…; @FILE reads the URL from a file",
    )  # fmt: skip
    add_domains(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--plans", action="store_true", help="show plans before and after")
    making = parser.add_argument_group("making indexes")
    making.add_argument("--apply", action="store_true", help="make those that are worth it")
    making.add_argument("--yes", action="store_true", help="do not ask before")
    making.add_argument(
        "--policy", metavar="FILE|auto",
        help="make, without asking, those that this lets through (docs/advice.md)",
    )  # fmt: skip
    making.add_argument("--list", action="store_true", help="say which have been made, and end")
    making.add_argument("--remove", metavar="NAME", help="remove one of them, and end")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE",
        help="a limit of the advice, repeatable (docs/advice.md)",
    )  # fmt: skip
    parser.epilog = (
        "Ends with 1 when there is something to be done that was not done.\n"
        "Trials are made on a copy and leave nothing behind."
    )


def run(options: argparse.Namespace) -> int:
    """Carry out what was asked."""
    limits = read_limits(options.limit)
    url = read_url(options.target)
    try:
        database = open_database(url)
    except Malformed as error:
        raise CommandFailed(error.detail) from error
    if options.list or options.remove:
        return _list(options, database) if options.list else _remove(options, database, limits)
    if (options.report is None) == (options.query_url is None):
        raise CommandFailed(
            "name one report: a file, or --query-url",
            advice="'ultra query --patterns FILE' keeps one.",
        )
    policy = _policy(options, limits)
    _check_terminal(options)
    try:
        domains = import_domains(options.domain)
        asker = RouteAsker(routes_of(domains), open_reader(url, 1).dialect)
    except (InvariantBroken, Malformed) as error:
        raise CommandFailed(str(error)) from error
    projections: list[Projection] = [
        one for domain in domains for one in getattr(domain, "projections", ())
    ]

    async def advise() -> tuple[Advised, Admitted, list[Applied]]:
        report = await _report(options)
        async with _opened(database):
            found = await _advise(database, report, projections, asker, limits)
            chosen = admitted(found.trials, policy, _present(await database.held()))
            if options.output == "text":
                _print(found, chosen, plans=options.plans)
            return found, chosen, await _apply(options, database, chosen, projections, limits)

    found, chosen, applied = _carried_out(advise)
    left = len(chosen.trials) - len(applied)
    if options.output == "json":
        print_json(document(found, chosen, applied))
    return Exit.FINDINGS if left or found.specialised else Exit.OK


def _carried_out(work: Callable[[], Any]) -> Any:
    try:
        return carry_out(work)
    except Refused as error:
        raise CommandFailed(str(error), code=Exit.REFUSED) from error
    except TrialFailed as error:
        raise CommandFailed(str(error), code=Exit.FINDINGS) from error


class _opened:  # noqa: N801  (used like a function)
    """The database, connected for the length of a block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> Database:
        try:
            await self._database.open()
        except BaseException:
            await self._database.close()
            raise
        return self._database

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()


# --- what was given ---------------------------------------------------------------------------


def read_limits(texts: Sequence[str]) -> AdviceLimits:
    """The limits with what was given.  Raises `CommandFailed` naming each mistake."""
    hints, values, mistakes = get_type_hints(AdviceLimits), {}, []
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name] = hints[name](value)
            if not values[name] >= 0:
                mistakes.append(f"{name}: it is 0 or more")
        except KeyError:
            mistakes.append(f"{name}: no such limit")
        except ValueError:
            mistakes.append(f"{name}: {value!r} is no number")
    mistakes += [f"{name}: it is 1 or more" for name in COUNTS if values.get(name, 1) < 1]
    if mistakes:
        raise CommandFailed("\n  ".join(["wrong limits:", *mistakes]))
    return msgspec.structs.replace(DEFAULT_ADVICE_LIMITS, **values)


def _policy(options: argparse.Namespace, limits: AdviceLimits) -> Policy:
    if options.policy is None or options.policy == AUTO:
        return of_limits(limits)
    try:
        return parse(Path(options.policy).read_text(), limits)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read the policy: {error}") from error
    except Malformed as error:
        raise CommandFailed(error.detail) from error


def _check_terminal(options: argparse.Namespace) -> None:
    """Before anything is tried: whether the question can be asked in the end."""
    if options.apply and not options.yes and options.policy is None and not sys.stdin.isatty():
        raise CommandFailed(
            "there is no terminal to confirm on",
            advice="Give --yes, or a --policy.",
        )


async def _report(options: argparse.Namespace) -> Report:
    """The report of the file or the process.  Raises `CommandFailed`."""
    if options.report is not None:
        try:
            text = options.report.read_bytes()
        except OSError as error:
            raise CommandFailed(f"cannot read the report: {error}") from error
    else:
        text = await _fetched(options)
    try:
        report = msgspec.json.decode(text, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommandFailed(f"that is no report of query patterns: {error}") from error
    if report.version != REPORT_VERSION:
        raise CommandFailed(f"a report of version {report.version} cannot be read")
    return report


async def _fetched(options: argparse.Namespace) -> bytes:
    url = options.query_url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"{url!r} is no address", advice="As in http://127.0.0.1:8082.")
    key = os.environ.get(KEY_VARIABLE)
    if options.key_file is not None:
        try:
            key = options.key_file.read_text().strip()
        except OSError as error:
            raise CommandFailed(f"cannot read the API key: {error}") from error
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FETCH_S)) as session,
            session.get(url + PATTERNS, headers=headers) as answer,
        ):
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CommandFailed(
            f"no 'ultra query' answers at {url}: {error or 'no answer'}", code=Exit.UNREACHABLE
        ) from error
    if answer.status != 200:
        raise CommandFailed(
            f"{url} refuses the report: {answer.status} {answer.reason}", code=Exit.REFUSED
        )
    return bytes(body)


# --- advice -----------------------------------------------------------------------------------


async def _advise(
    database: Database,
    report: Report,
    projections: Sequence[Projection],
    asker: RouteAsker,
    limits: AdviceLimits,
) -> Advised:
    sets = await serving(database, projections)
    if not sets:
        raise CommandFailed(
            "the database serves no tables of these domains in the version that they declare",
            advice="See 'ultra projection status'; --domain names other domains.",
            code=Exit.REFUSED,
        )
    facts = await look(database, sets, projections)
    suggestions = suggest(report, facts, limits)
    specialised, unmade = specialise(report, asker.computed, facts, limits)
    trials = await try_all(database, sets, facts, suggestions.candidates, asker, limits, say)
    tried = await try_specialised(database, sets, specialised, limits, say)
    return Advised(trials, specialised, tried, (*suggestions.left_out, *unmade))


def _present(held: Sequence[Held]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in held:
        found.setdefault((one.index.projection, one.index.table), []).append(one.index.name)
    return found


async def _apply(
    options: argparse.Namespace,
    database: Database,
    chosen: Admitted,
    projections: Sequence[Projection],
    limits: AdviceLimits,
) -> list[Applied]:
    """Make what may be made and is wanted."""
    if not chosen.trials or not (options.apply or options.policy):
        return []
    if options.policy is None and not options.yes and not _confirmed(chosen):
        say("nothing was changed")
        return []
    by_name = {one.name: one for one in projections}
    done = []
    for trial in chosen.trials:
        one = trial.candidate
        now = SystemClock().now()
        index = AddedIndex(one.projection, one.name, one.table, one.columns, now)
        how = await database.add(index, by_name[one.projection], limits)
        say(f"made {one.name} on {one.table} {how}")
        done.append(Applied(one.name, one.table, one.columns, how))
    return done


def _confirmed(chosen: Admitted) -> bool:
    count = plural(len(chosen.trials), "index", "indexes")
    print(f"Make {count}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


# --- what is said -----------------------------------------------------------------------------


def _print(found: Advised, chosen: Admitted, *, plans: bool) -> None:
    if found.trials:
        rows = [["table", "index over", "verdict", "work", "time", "writes", "size", "why"]]
        rows += [_row(one, chosen) for one in found.trials]
        print_table(rows, right=frozenset({3, 4, 5, 6}))
    for one in found.trials:
        _print_evidence(one, plans=plans)
    for made, trial in zip(found.specialised, found.special_trials, strict=True):
        share = f"{made.evidence.share:.0%} of the time, 95 % within"
        print(f"\n{made.evidence.read}: {share} {_ms(made.evidence.seconds_p95)}; to be declared:")
        print(f"{made.declaration}# {made.instruction}")
        _print_special(trial, plans=plans)
    for left in found.left_out:
        print(f"left out: {_asked(left.read, left.filters, left.order)}: {left.reason}")
    if not found.trials and not found.specialised:
        print("nothing to improve")


def _row(one: Trial, chosen: Admitted) -> list[str]:
    refused = {trial.candidate.name: why for trial, why in chosen.refused}
    verdict = "held back" if one.candidate.name in refused else str(one.verdict)
    columns = ", ".join(one.candidate.columns)
    why = refused.get(one.candidate.name, one.reason)
    if one.write is None:
        return [one.candidate.table, columns, verdict, "-", "-", "-", "-", why]
    return [
        one.candidate.table, columns, verdict, f"÷{one.gain:g}", f"÷{one.time_gain:g}",
        f"{one.write.share:+.0%}", f"{one.index_bytes / 1024:,.0f} KiB", why,
    ]  # fmt: skip


def _print_evidence(one: Trial, *, plans: bool) -> None:
    print(f"\n{one.candidate.name}  {one.candidate.table} ({', '.join(one.candidate.columns)})")
    if one.copy_rows:
        rows = f"{one.copy_rows:,} of about {one.table_rows:,} rows"
        print(f"  tried on {rows}; work in {one.work_unit}")
    for place, shown in enumerate(one.candidate.evidence):
        print(
            f"  {_asked(shown.read, shown.filters, shown.order)}: {plural(shown.calls, 'call')}, "
            f"{shown.share:.0%} of the time, 50 % within {_ms(shown.seconds_p50)}, 95 % within "
            f"{_ms(shown.seconds_p95)}, {shown.returned:,g} rows"
        )
        if place < len(one.shapes):
            shape = one.shapes[place]
            print(
                f"    work {shape.before.work:,.0f} -> {shape.after.work:,.0f}, "
                f"{_ms(shape.before.seconds)} -> {_ms(shape.after.seconds)}"
            )
            if plans:
                for when, measured in (("before", shape.before), ("after", shape.after)):
                    print(f"    {when}:\n      " + measured.plan.replace("\n", "\n      "))
    for note in one.notes:
        print(f"  note: {note}")


def _print_special(one: SpecialTrial, *, plans: bool) -> None:
    print(f"# tried: {one.verdict}, {one.reason}")
    if one.before is None or one.after is None or one.write is None:
        return
    print(
        f"#   {one.copy_rows:,} rows become {one.rows:,} in {_ms(one.build_seconds)}; work in "
        f"{one.work_unit}: {one.before.work:,.0f} -> {one.after.work:,.0f}, "
        f"{_ms(one.before.seconds)} -> {_ms(one.after.seconds)}; writes {one.write.share:+.0%}"
    )
    if plans:
        for when, measured in (("before", one.before), ("after", one.after)):
            print(f"#   {when}:\n#     " + measured.plan.replace("\n", "\n#     "))


def _asked(read: str, filters: Sequence[str], order: Sequence[str]) -> str:
    by = f" by {', '.join(filters)}" if filters else ""
    return f"{read}{by}" + (f" in order of {', '.join(order)}" if order else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def document(found: Advised, chosen: Admitted, applied: Sequence[Applied]) -> dict[str, Any]:
    """All of it for programs."""
    refused = {trial.candidate.name: why for trial, why in chosen.refused}
    return {
        "indexes": [
            {
                "name": one.candidate.name,
                "projection": one.candidate.projection,
                "table": one.candidate.table,
                "columns": one.candidate.columns,
                "evidence": one.candidate.evidence,
                "held_back": refused.get(one.candidate.name),
                "write_cost": None if one.write is None else round(one.write.share, 4),
                **_without(one, "candidate"),
            }
            for one in found.trials
        ],
        "specialised": [
            {**_without(made, "special"), "trial": trial}
            for made, trial in zip(found.specialised, found.special_trials, strict=True)
        ],
        "left_out": found.left_out,
        "applied": applied,
        "worth_making": [one.candidate.name for one in found.trials if one.verdict is Verdict.KEEP],
    }


def _without(one: msgspec.Struct, name: str) -> Mapping[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(one).items() if key != name}


# --- those that were made ---------------------------------------------------------------------


def _list(options: argparse.Namespace, database: Database) -> int:
    async def held() -> Sequence[Held]:
        async with _opened(database):
            return await database.held()

    found: Sequence[Held] = _carried_out(held)
    if options.output == "json":
        print_json(found)
    elif not found:
        print("no index was added")
    else:
        rows = [["name", "projection", "table", "columns", "sets", "missing", "size"]]
        rows += [
            [
                one.index.name, one.index.projection, one.index.table,
                ", ".join(one.index.columns), " ".join(one.sets) or "-",
                " ".join(one.missing) or "-",
                "-" if one.bytes is None else f"{one.bytes / 1024:,.0f} KiB",
            ]
            for one in found
        ]  # fmt: skip
        print_table(rows, right=frozenset({6}))
    return Exit.FINDINGS if any(one.missing for one in found) else Exit.OK


def _remove(options: argparse.Namespace, database: Database, limits: AdviceLimits) -> int:
    async def remove() -> AddedIndex:
        async with _opened(database):
            for one in await database.held():
                if one.index.name == options.remove:
                    await database.remove(one.index, limits)
                    return one.index
        raise CommandFailed(
            f"no added index is called {options.remove}", advice="'ultra advise --list' has names."
        )

    index: AddedIndex = _carried_out(remove)
    if options.output == "json":
        print_json({"removed": index})
    else:
        say(f"removed {index.name} from {index.table}")
    return Exit.OK
