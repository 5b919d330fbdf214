"""`ultra status`: what an engine says of itself."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_facts, print_json, print_table
from ultraengine.client import ClientError

WELL = frozenset({"serving", "following"})
"""The second of a copy that follows."""
TABLES = frozenset({"consumers", "followers", "positions", "last_failover", "divergence"})
"""Members that are not one fact."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Ends with 0 when the engine, and each of its shards, serves or follows another copy,\n"
        "and with 1 when one does something else.\n"
        "'ultra serve' has its status on the admin port: --url http://127.0.0.1:8081"
    )
    add_connection(parser, timeout_s=5.0)


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    with connect(options) as client:
        try:
            status = client.get("/admin/v1/status").value
        except ClientError as error:
            raise failure(error, options) from error
    shards = status.get("shards")
    if options.output == "json":
        print_json(status)
    elif shards is None:
        _show(status)
    else:
        print_facts({name: value for name, value in status.items() if name != "shards"})
        print()
        print_table(_rows(shards))
    consumers = _consumers(status)
    if len(consumers) > 1 and options.output != "json":
        print()
        print_table(consumers, right=frozenset({2, 3}))
    states = [status.get("state"), *(shard["state"] for shard in shards or ())]
    return Exit.OK if all(state in WELL for state in states) else Exit.FINDINGS


def _show(status: Mapping[str, Any]) -> None:
    """One shard, or one copy of it."""
    print_facts({name: value for name, value in status.items() if name not in TABLES})
    for name in ("positions", "last_failover", "divergence"):
        if status.get(name):
            print(f"\n{name.replace('_', ' ')}")
            print_facts(status[name])
    if status.get("followers"):
        print()
        print_table(_followers(status["followers"]), right=frozenset({2, 3, 4, 5}))


def _followers(followers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One line for each other copy, as its leader knows it."""
    rows = [["copy", "in sync", "frames", "bytes", "seconds behind", "silent s", "barred"]]
    for one in followers:
        facts = [
            one["replica"], _yes(one["in_sync"]), one["lag_frames"], one["lag_bytes"],
            _short(one["lag_s"]), _short(one["silent_s"]), _yes(one["barred"]),
        ]  # fmt: skip
        rows.append(["-" if fact is None else str(fact) for fact in facts])
    return rows


def _yes(fact: bool) -> str:  # noqa: FBT001  (a cell of a table)
    return "yes" if fact else "no"


def _short(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.3f}"


def shard_statuses(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What each shard that answers says of itself, whether a front or the shard was asked."""
    views = status.get("shards")
    if views is None:
        return [status]
    return [view["status"] for view in views if view["status"] and view["state"] != "unreachable"]


def _rows(shards: list[Mapping[str, Any]]) -> list[list[str]]:
    """One line for each shard of a front."""
    rows = [["shard", "state", "slots", "offsets", "epoch", "pid", "restarts", "last exit"]]
    for shard in shards:
        status, process = shard["status"] or {}, shard["process"] or {}
        facts = [
            shard["shard"], shard["state"], shard["slots"], status.get("applied_end"),
            status.get("epoch"), process.get("pid"), process.get("restarts"),
            process.get("last_exit"),
        ]  # fmt: skip
        rows.append(["-" if fact is None else str(fact) for fact in facts])
    return rows


def _consumers(status: Mapping[str, Any]) -> list[list[str]]:
    """One line for each consumer slot of the feed, and how far it is behind."""
    rows = [["consumer", "shard", "confirmed", "behind"]]
    for one in shard_statuses(status):
        rows += [
            [slot["name"], str(one["shard"]), str(slot["offset"]), str(slot["lag"])]
            for slot in one.get("consumers", ())
        ]
    return rows
