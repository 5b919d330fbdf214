"""`ultra gateway`: the API before shards that others run, configured by its environment."""

import argparse
import os

from ultraengine.cli.exits import CommandFailed
from ultraengine.config import ConfigErrors
from ultraengine.front.driver import run_gateway
from ultraengine.front.settings import GatewaySettings


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb has no arguments: everything is in the environment."""
    parser.epilog = (
        "Settings: ULTRA_MAP, ULTRA_SHARD_ADDRESS, ULTRA_HOP_KEY, ULTRA_API_KEYS or\n"
        "ULTRA_KEYLESS, ULTRA_PORT, ULTRA_LIMIT_… (docs/kubernetes/pods.md);\n"
        "all mistakes are reported together."
    )


def run(_options: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    try:
        settings = GatewaySettings.from_env(os.environ)
    except ConfigErrors as errors:
        raise CommandFailed("\n  ".join(["wrong settings:", *errors.mistakes])) from errors
    return int(run_gateway(settings))
