"""`ultra promote`: let another copy of a shard lead, without a failover."""

import argparse

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_json
from ultraengine.client import ClientError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "replica",
        type=int,
        nargs="?",
        help="number of the copy that is to lead (the best one that is in sync)",
    )
    parser.add_argument("--reason", default="", help="kept in the audit log")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Ask the leader, at its admin port: --url http://127.0.0.1:8081\n"
        "It takes no more commands, finishes those that were taken, and hands over; clients go on\n"
        "at the new leader with the same ids. Its process ends with 78, to be started again.\n"
        "Nothing changes when the copy does not get there in time (exit code 5)."
    )
    add_connection(parser, timeout_s=30.0)


def run(options: argparse.Namespace) -> int:
    """Ask, and say who leads."""
    body = {"replica": options.replica, "reason": options.reason}
    with connect(options) as client:
        try:
            result = client.operate("promote", body)["result"]
        except ClientError as error:
            raise failure(error, options) from error
    if options.output == "json":
        print_json(result)
    else:
        print(
            f"replica {result['replica']} leads in epoch {result['epoch']}, from offset "
            f"{result['log_end']} on; no commands were taken for {result['stopped_s']:.3f} s "
            "before that"
        )
    return Exit.OK
