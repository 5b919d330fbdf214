"""`ultra new domain NAME`: a working domain to start from."""

import argparse
from pathlib import Path

from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.new_domain import new_domain


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    domain = kinds.add_parser("domain", help="a domain with its tests")
    domain.add_argument("name", help="lower-case name; the prefix of its command types")
    domain.add_argument(
        "--directory", type=Path, default=Path(), help="where to write it (%(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the files and say how to run them."""
    try:
        written = new_domain(options.name, options.directory)
    except (ValueError, OSError) as error:
        raise CommandFailed(str(error)) from error
    for path in written:
        print(path)
    return Exit.OK
