"""Random scripts of a domain's commands: what the suites for domains and their tables share."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ultraengine.model.domain import Domain
from ultraengine.testing.rehearsal import ScriptCommand, load_domain

Script = list[ScriptCommand]

WAITS_US: Final = (1, 1_000, 1_000_000, 3_600_000_000)
"""Time between commands: from the same instant, nearly, to an hour."""
_QUIET: Final = (HealthCheck.differing_executors, HealthCheck.too_slow, HealthCheck.data_too_large)
SETTINGS: Final = settings(
    max_examples=40, deadline=None, report_multiple_bugs=False, suppress_health_check=_QUIET
)
_COLLECT: Final = settings(
    SETTINGS, max_examples=100, phases=[Phase.generate], derandomize=True, database=None
)


class Scripted:
    """Gives scripts: give ``domain`` and ``commands``."""

    domain: ClassVar[str]
    """``package.module:ATTRIBUTE``, importable in other processes."""
    commands: ClassVar[st.SearchStrategy[ScriptCommand]]
    """Commands of all types, right and wrong ones (`testing.rehearsal.command`)."""
    commands_max: ClassVar[int] = 15
    """Longest script."""

    def scripts(self) -> st.SearchStrategy[Script]:
        """Scripts of these commands, with time between them."""
        waits = st.sampled_from(WAITS_US)
        lines = st.builds(_later, self.commands, waits)
        return st.lists(lines, min_size=1, max_size=self.commands_max)

    def loaded(self) -> Domain:
        """The domain."""
        return load_domain(self.domain)

    def collected(self) -> list[Script]:
        """The same scripts in every run."""
        found: list[Script] = []

        @_COLLECT
        @given(script=self.scripts())
        def collect(script: Script) -> None:
            found.append(script)

        run: Callable[[], Any] = collect
        run()
        return found


def _later(line: ScriptCommand, wait_us: int) -> ScriptCommand:
    return msgspec.structs.replace(line, wait_us=wait_us)
