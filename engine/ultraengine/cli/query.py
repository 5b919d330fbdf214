"""`ultra query`: reads over the tables of a projection, a process of its own."""

import argparse
import os
from pathlib import Path

from ultraengine.cli.domains import LEDGER, add_domains
from ultraengine.cli.exits import CommandFailed
from ultraengine.cli.output import say
from ultraengine.cli.projecting import read_url
from ultraengine.config import ConfigErrors, limits_from_env
from ultraengine.edge.auth import KeyFileError
from ultraengine.model.errors import InvariantBroken, Malformed
from ultraengine.query.main import QueryOptions, QueryProcess, serve
from ultraengine.starting.loading import load_domains
from ultraengine.starting.log_lines import configure_logging
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.random import SystemRandom


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--target",
        required=True,
        help="URL of the database that a worker fills; @FILE reads it from a file",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8082, help="port (%(default)s)")
    callers = parser.add_mutually_exclusive_group()
    callers.add_argument("--keys", type=Path, help="file of API keys; without it: loopback only")
    callers.add_argument(
        "--keyless", action="store_true", help="ask nobody for a key: a network trusted as a whole"
    )
    parser.add_argument(
        "--cursor-key", type=Path, help="file with the secret of cursors, for several processes"
    )
    parser.add_argument(
        "--patterns", type=Path, help="file that keeps the report of query patterns"
    )
    add_domains(parser)
    parser.epilog = "Limits: ULTRA_LIMIT_SQL_READS_MAX, ULTRA_LIMIT_SQL_STATEMENT_S, …"


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    configure_logging(dev=False)

    def announce(process: QueryProcess) -> None:
        host, port = process.addresses[0][:2]
        say(f"ultra query: http://{host}:{port}/docs")

    try:
        serve(
            QueryOptions(
                target=read_url(options.target),
                host=options.host,
                port=options.port,
                keys=options.keys,
                keyless=options.keyless,
                cursor_key=options.cursor_key,
                patterns=options.patterns,
                limits=limits_from_env(os.environ),
            ),
            load_domains(tuple(options.domain or (LEDGER,))),
            SystemClock(),
            SystemRandom(),
            announce,
        )
    except ConfigErrors as errors:
        raise CommandFailed("\n  ".join(["wrong settings:", *errors.mistakes])) from errors
    except (Malformed, InvariantBroken, KeyFileError, ValueError) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"cannot serve: {error}") from error
    return 0
