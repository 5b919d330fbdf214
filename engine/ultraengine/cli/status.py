"""`ultra status`: what an engine says of itself."""

import argparse

from ultraengine.cli.connection import add_connection, connect, failure
from ultraengine.cli.exits import Exit
from ultraengine.cli.output import print_facts, print_json
from ultraengine.client import ClientError

SERVING = "serving"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.epilog = (
        "Ends with 0 when the engine serves and with 1 when it does something else.\n"
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
    if options.output == "json":
        print_json(status)
    else:
        print_facts(status)
    return Exit.OK if status.get("state") == SERVING else Exit.FINDINGS
