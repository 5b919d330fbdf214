"""`ultra status`: what an engine says of itself."""

import argparse
from collections.abc import Mapping
from typing import Any

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_facts, print_json, print_table
from ultraengine.client import ClientError

SERVING = "serving"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Ends with 0 when the engine, and each of its shards, serves, and with 1 when one does\n"
        "something else.\n"
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
        print_facts({name: value for name, value in status.items() if name != "consumers"})
    else:
        print_facts({name: value for name, value in status.items() if name != "shards"})
        print()
        print_table(_rows(shards))
    consumers = _consumers(status)
    if len(consumers) > 1 and options.output != "json":
        print()
        print_table(consumers, right=frozenset({2, 3}))
    states = [status.get("state"), *(shard["state"] for shard in shards or ())]
    return Exit.OK if all(state == SERVING for state in states) else Exit.FINDINGS


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
