"""`ultra`: one program for everything that is done with an engine.

Each verb is a module with ``configure(parser)`` and ``run(arguments) -> int``; only the one
that is asked for is imported, so that ``ultra --help`` is quick.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Final, NamedTuple

from ultraengine.cli.exits import CommandFailed, Exit, epilog
from ultraengine.cli.output import hold_standard_descriptors, say


class Verb(NamedTuple):
    """One verb of the command line."""

    module: str
    """Module with ``configure`` and ``run``."""
    summary: str


VERBS: Final[dict[str, Verb]] = {
    "dev": Verb("ultraengine.cli.dev", "run everything on this machine, for development"),
    "serve": Verb(
        "ultraengine.cli.serve", "run one shard replica, configured by ULTRA_* variables"
    ),
    "gateway": Verb(
        "ultraengine.cli.gateway", "serve the API before shards, configured by ULTRA_* variables"
    ),
    "project": Verb("ultraengine.cli.project", "fill SQL databases from an engine's feed"),
    "projection": Verb(
        "ultraengine.cli.projection_verbs", "state, rebuild, pause and proof of SQL tables"
    ),
    "query": Verb("ultraengine.cli.query", "answer reads from the database of a projection"),
    "advise": Verb("ultraengine.cli.advise", "indexes that recorded queries ask for, tried first"),
    "send": Verb("ultraengine.cli.send", "send a command, or a file of them"),
    "get": Verb("ultraengine.cli.get", "read from the engine"),
    "repl": Verb("ultraengine.cli.repl", "type commands and reads, with completion"),
    "import": Verb("ultraengine.cli.importing.verb", "turn the rows of a table into commands"),
    "shards": Verb("ultraengine.cli.shards", "move slots between running shards"),
    "status": Verb("ultraengine.cli.status", "what an engine says of itself"),
    "promote": Verb("ultraengine.cli.promote", "let another copy of a shard lead"),
    "candidate": Verb(
        "ultraengine.cli.candidate", "decide a running shard's log again with this build"
    ),
    "doctor": Verb("ultraengine.cli.doctor", "check this machine, its data and its settings"),
    "log": Verb("ultraengine.cli.log_verbs", "verify, read and repair a command log"),
    "snapshot": Verb("ultraengine.cli.snapshot_verbs", "list, verify and convert snapshots"),
    "backup": Verb("ultraengine.cli.backup_verbs", "back up to an object store, list, verify"),
    "restore": Verb("ultraengine.cli.restore_verb", "a new engine's directory from a backup"),
    "key": Verb("ultraengine.cli.key_verbs", "issue, list and revoke API keys"),
    "new": Verb("ultraengine.cli.new", "write a working domain to start from"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code (`docs/cli.md`)."""
    hold_standard_descriptors()
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except CommandFailed as failed:
        say(f"ultra: {failed.message}")
        if failed.advice:
            say(f"  {failed.advice}")
        return failed.code
    except KeyboardInterrupt:
        say("ultra: interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `ultra log dump | head`.
        sys.stderr.close()
        return Exit.OK


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ultra",
        description="A durable, deterministic, in-memory OLTP engine.",
        epilog=f"'ultra VERB --help' says more.\n\n{epilog()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ultra {_version()}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, verb in VERBS.items():
        child = verbs.add_parser(
            name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == wanted:
            module = importlib.import_module(verb.module)
            module.configure(child)
            child.set_defaults(run=module.run)
    return parser


def _version() -> str:
    return metadata.version("ultraengine")


if __name__ == "__main__":
    sys.exit(main())
