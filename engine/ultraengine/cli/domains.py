"""Domains and extensions that a verb is told by name."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ultraengine.cli.exits import CommandFailed
from ultraengine.extensions import NONE, Extensions
from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError

LEDGER: Final = "ultraengine.domains.ledger:DOMAIN"


def add_domains(parser: argparse.ArgumentParser) -> None:
    """The argument of verbs that need to understand the state."""
    parser.add_argument(
        "--domain",
        action="append",
        metavar="PACKAGE.MODULE:ATTRIBUTE",
        help="a domain of the data, repeatable (the ledger); modules of this directory are found",
    )


def import_domains(names: Sequence[str] | None) -> list[Domain]:
    """Domains by ``package.module:ATTRIBUTE``, the ledger by default.  Raises `CommandFailed`."""
    # The interpreter of an installed program does not look into the current directory.
    sys.path.insert(0, str(Path.cwd()))
    loaded: list[Domain] = []
    for name in names or (LEDGER,):
        module, _, attribute = name.partition(":")
        try:
            loaded.append(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError, ValueError) as error:
            raise CommandFailed(f"domain {name}: {error}") from error
    return loaded


def import_extensions() -> Extensions:
    """What ``ULTRA_EXTENSIONS`` names, as for `ultra serve`.  Raises `CommandFailed`."""
    name = os.environ.get("ULTRA_EXTENSIONS")
    if name is None:
        return NONE
    # Only here: it brings the tracing of a process along.
    from ultraengine.starting.loading import load_extensions  # noqa: PLC0415

    sys.path.insert(0, str(Path.cwd()))
    try:
        return load_extensions(name)
    except EngineError as error:
        raise CommandFailed(str(error)) from error
