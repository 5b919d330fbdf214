"""`ultra dev`: everything on this machine, one port, keyless from loopback."""

import argparse
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ultraengine.cli.connection import KEY_VARIABLE
from ultraengine.cli.domains import LEDGER, add_domains
from ultraengine.cli.exits import CommandFailed
from ultraengine.cli.output import tell
from ultraengine.cli.seeds import SEEDS, sow_beside
from ultraengine.config import Config, ConfigErrors
from ultraengine.main import Process, run_dev
from ultraengine.model.errors import InvariantBroken
from ultraengine.projection.projector import declared
from ultraengine.starting.loading import load_domains
from ultraengine.supervisor.driver import Machine, open_directory, run_dev_shards
from ultraengine.supervisor.layout import LayoutRefused
from ultraengine.supervisor.projecting.driver import DATABASE, projecting

ARCHIVE = "archive"
"""Directory in the data where removed segments are kept for ever."""
BANNER = """\
UltraEngine is running for development (not for production: one machine, {access}).

  address    {url}
  documents  {url}/docs
  data       {data}
  domains    {domains}
  shards     {shards}
  SQL        {sql}

"""

FIRST_STEPS = """\
Try a first transfer (in another terminal):

  curl -s {url}/v1/commands -H 'Content-Type: application/json' -d '{{
    "id": "open-1", "type": "ledger.open_accounts", "key": "book-1",
    "data": {{"accounts": [
      {{"id": "alice", "asset": "USD/2", "min_balance": null}},
      {{"id": "shop", "asset": "USD/2"}}]}}}}'

  curl -s {url}/v1/commands -H 'Content-Type: application/json' -d '{{
    "id": "pay-1", "type": "ledger.create_transfers", "key": "book-1",
    "data": {{"transfers": [{{"id": "t1", "from": "alice", "to": "shop", "amount": "1250"}}]}}}}'

  curl -s {url}/v1/ledger/book-1/accounts/shop

"""
FIRST_QUERY = """\
What it made of the tables, a moment later, for any program, or over HTTP at port 8082:

  sqlite3 '{database}' 'SELECT account, asset, balance FROM ledger_account'
  ultra query --target 'sqlite:///{database}'

"""
NO_KEY = f"none: with --auth it needs a key of the scope feed in {KEY_VARIABLE}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data", type=Path, default=Path("ultra-data"), help="directory of the data (%(default)s)"
    )
    where.add_argument(
        "--ephemeral", action="store_true", help="keep nothing: a directory that is removed"
    )
    parser.add_argument("--port", type=int, default=8080, help="port of everything (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add_domains(parser)
    parser.add_argument(
        "--extensions",
        metavar="PACKAGE.MODULE:ATTRIBUTE",
        help="hooks, policies and codecs of your own (docs/extending.md)",
    )
    parser.add_argument("--auth", type=Path, metavar="FILE", help="ask for API keys of this file")
    parser.add_argument(
        "--durability",
        choices=("sync", "group", "async"),
        default="sync",
        help="what an answer waits for (%(default)s)",
    )
    parser.add_argument(
        "--no-archive",
        action="store_true",
        help="do not keep the whole history in DATA/archive, from which projections are rebuilt",
    )
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="shards that share the keys, one process each (1, or what the directory has); "
        "another number than before moves keys between them while they serve",
    )
    parser.add_argument(
        "--seed-data",
        choices=sorted(SEEDS),
        metavar="NAME",
        help=f"book a small set of data, once: {', '.join(sorted(SEEDS))}",
    )
    parser.add_argument(
        "--no-sql",
        action="store_true",
        help=f"no SQLite database of the domains' tables in DATA/{DATABASE}",
    )
    parser.epilog = "Ctrl-C stops it: what was accepted is answered and recorded first."


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    # The interpreter of an installed program does not look into the current directory.
    sys.path.insert(0, str(Path.cwd()))
    if not options.ephemeral:
        return _serve(options, options.data)
    with tempfile.TemporaryDirectory(prefix="ultra-") as directory:
        return _serve(options, Path(directory))


def _check_place(options: argparse.Namespace, data: Path) -> None:
    """See that port and directory can be had, before anything starts.  Raises `CommandFailed`."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        raise CommandFailed(
            f"cannot listen on {options.host}:{options.port}: {error}",
            advice="Another engine may be running there: 'ultra status'. Choose one with --port.",
        ) from error
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(
            f"cannot keep data in {data}: {error}", advice="Choose a directory with --data."
        ) from error


def _serve(options: argparse.Namespace, data: Path) -> int:
    domains = tuple(options.domain or (LEDGER,))
    config = Config(
        data=data,
        host=options.host,
        port=options.port,
        admin_port=options.port,
        domains=domains,
        extensions=options.extensions,
        durability=options.durability,
        api_keys=options.auth,
        archive=None if options.no_archive else str(data / ARCHIVE),
        compaction="none" if options.no_archive else "time",
        dev=True,
    )
    try:
        config.check()
    except ConfigErrors as errors:
        raise CommandFailed(str(errors)) from errors
    _check_place(options, data)
    try:
        directory = open_directory(data, options.shards)
    except (LayoutRefused, InvariantBroken) as error:
        raise CommandFailed(f"{data}: {error}") from error
    if options.seed_data and LEDGER not in domains:
        raise CommandFailed(f"--seed-data {options.seed_data} books in the ledger: add --domain")

    database = (data / DATABASE).resolve()
    has_sql, sql = _sql(options, domains, database)

    def announce(process: Process | Machine) -> None:
        host, port = process.gateway.addresses[0][:2]
        url = f"http://{host}:{port}"
        text = BANNER.format(
            url=url,
            access="API keys" if options.auth else "no keys asked from this machine",
            data="none is kept" if options.ephemeral else data.resolve(),
            domains=", ".join(domain.name for domain in process.registry.domains),
            sql=sql,
            shards="1" if directory is None else f"{len(directory.shards)}, a process each",
        )
        if LEDGER in domains and not options.auth:
            text += FIRST_STEPS.format(url=url)
            if has_sql:
                text += FIRST_QUERY.format(database=database)
        tell(text + "Ctrl-C stops it.")
        if options.seed_data:
            sow_beside(url, options.seed_data)

    def beside(process: Process | Machine) -> contextlib.AbstractAsyncContextManager[object]:
        host, port = process.gateway.addresses[0][:2]
        return projecting(config, host, port) if has_sql else contextlib.nullcontext()

    if directory is None:
        return int(run_dev(config, announce, beside))
    return int(run_dev_shards(config, directory, announce, beside))


def _sql(options: argparse.Namespace, domains: Sequence[str], database: Path) -> tuple[bool, str]:
    """Whether a worker fills a database, and what is said of it."""
    if options.no_sql:
        return False, "none, as you said"
    try:
        found = declared(load_domains(domains))
    except (ConfigErrors, InvariantBroken):
        return False, "none"  # The start of the engine says what is wrong with the domains.
    if not found:
        return False, "none: the domains declare no tables"
    if options.auth and not os.environ.get(KEY_VARIABLE):
        return False, NO_KEY
    return True, str(database)
