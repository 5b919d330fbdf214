"""What a process imports by name: domains, a user's own parts, tracing."""

import importlib
from collections.abc import Sequence
from typing import cast

from ultraengine import __version__
from ultraengine.config import Config, ConfigErrors
from ultraengine.extensions import NONE as NO_EXTENSIONS
from ultraengine.extensions import Extensions
from ultraengine.gateway.tracing import OpenTelemetry
from ultraengine.model.domain import Domain
from ultraengine.ports import Telemetry


def load_domains(names: Sequence[str]) -> list[Domain]:
    """Import ``package.module:ATTRIBUTE``s.  Raises `ConfigErrors` naming each mistake."""
    domains: list[Domain] = []
    mistakes: list[str] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            domains.append(cast("Domain", getattr(importlib.import_module(module), attribute)))
        except (ImportError, AttributeError, ValueError) as error:
            mistakes.append(f"domain {name}: {error}")
    if mistakes:
        raise ConfigErrors(mistakes)
    return domains


def load_extensions(name: str | None) -> Extensions:
    """Import the user's own parts.  Raises `ConfigErrors`."""
    if name is None:
        return NO_EXTENSIONS
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigErrors([f"extensions {name}: {error}"]) from error
    if not isinstance(found, Extensions):
        raise ConfigErrors([f"extensions {name}: it is not an Extensions"])
    return found


def telemetry(config: Config) -> Telemetry | None:
    """Spans through OpenTelemetry.  Raises `ConfigErrors` without the extra ``tracing``."""
    if not config.tracing:
        return None
    try:
        api = importlib.import_module("opentelemetry.trace")
    except ImportError as error:
        raise ConfigErrors(
            ["ULTRA_TRACING: install the extra: pip install 'ultraengine[tracing]'"]
        ) from error
    return OpenTelemetry(api.get_tracer("ultraengine", __version__))
