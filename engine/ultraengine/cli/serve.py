"""`ultra serve`: one shard replica, configured by its environment, as in a container."""

import argparse
import os

from ultraengine.cli.exits import CommandFailed
from ultraengine.config import Config, ConfigErrors
from ultraengine.main import run_serve


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb has no arguments: everything is in the environment."""
    parser.epilog = (
        "Settings: ULTRA_DATA, ULTRA_PORT, ULTRA_API_KEYS, ULTRA_LIMIT_… (docs/operations.md); "
        "all mistakes are reported together."
    )


def run(_options: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    try:
        config = Config.from_env(os.environ)
    except ConfigErrors as errors:
        raise CommandFailed("\n  ".join(["wrong settings:", *errors.mistakes])) from errors
    return int(run_serve(config))
