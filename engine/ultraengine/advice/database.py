"""What a database does for advice: facts, copies to try on, indexes that are added.

A copy belongs to one connection and is gone with it, however that ends: a killed trial leaves
nothing.  Every implementation passes the same tests (`tests/unit/advice/test_databases.py`).
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from ultraengine.advice.suggest import Facts
from ultraengine.advice.sums import Special, SpecialWords
from ultraengine.advice.trial import Example, Measured, Question
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Projection, Table
from ultraengine.projection.added_indexes import AddedIndex
from ultraengine.projection.target import ProjectionSet, SetState

TRIED: Final = "ultra_tried"
"""Name of the index under trial, in a copy."""


class Refused(Exception):
    """The database does not let us, or cannot: nothing was changed."""


class Held(msgspec.Struct, frozen=True):
    """An added index and where it is."""

    index: AddedIndex
    sets: tuple[str, ...]
    """``v1_b2``: sets that serve or are built and have it."""
    missing: tuple[str, ...]
    """Likewise, and do not have it: it was being made when something went wrong."""
    bytes: int | None = None
    """Of all of them, where the database says so."""


def is_lasting(of: ProjectionSet, index: AddedIndex) -> bool:
    """Whether a set of the index's projection is not on its way out."""
    return of.projection == index.projection and of.state is not SetState.RETIRED


def sparse(table: Table) -> tuple[tuple[str, ...], ...]:
    """Declared indexes that leave rows out: all that a filter can ask for is in them."""
    return tuple(one.columns for one in table.indexes if one.sparse)


class Copy(Protocol):
    """A table with its indexes, for nobody else."""

    @property
    def rows(self) -> int:
        """How many it has."""

    @property
    def unit(self) -> str:
        """Of `Measured.work`."""

    async def examples(self, columns: Sequence[str], count: int) -> Sequence[Example]:
        """Rows from all over the table in which none of these columns is null."""

    async def ask(self, question: Question) -> Measured:
        """Ask once for the plan and the work, then `AdviceLimits.rounds` times for the time."""

    async def add(self, columns: Sequence[str]) -> tuple[float, int]:
        """Make the index `TRIED`; seconds and bytes."""

    async def remove(self) -> None:
        """Remove it again."""

    def words(self, special: Special) -> SpecialWords:
        """The statements of a specialised table of this copy's rows."""

    async def build(self, words: SpecialWords) -> tuple[float, int]:
        """Make it; seconds and rows.  It is gone with the copy, or with `unbuild`."""

    async def unbuild(self) -> None:
        """Remove it again."""

    async def fold_seconds(self, words: SpecialWords) -> float:
        """Seconds to merge as many rows into it as `write_seconds` inserts: the fastest of some."""

    async def write_seconds(self) -> tuple[int, float]:
        """Rows, and seconds to insert them: rows of the table itself, taken out before.

        The fastest of some attempts: the others had other work of the machine in their way.
        """


class Database(Protocol):
    """One database.  Methods raise `TargetUnavailable`, `Refused`, `TrialFailed`."""

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql``, ``mysql``."""

    async def open(self) -> None:
        """Connect.  A target without the engine's own tables is `Refused`."""

    async def close(self) -> None:
        """Disconnect.  Idempotent."""

    async def sets(self) -> Sequence[ProjectionSet]:
        """All sets."""

    async def facts(self, of: ProjectionSet, table: Table) -> Facts:
        """Rows and indexes of a table of a set."""

    def copy(
        self, of: ProjectionSet, table: Table, limits: AdviceLimits
    ) -> AbstractAsyncContextManager[Copy]:
        """A copy of it, of at most ``copy_rows_max`` rows."""

    async def held(self) -> Sequence[Held]:
        """Added indexes, by projection and name."""

    async def add(self, index: AddedIndex, projection: Projection, limits: AdviceLimits) -> str:
        """Remember it, and make it in every set that serves or is built and has none; how.

        Idempotent.  What it cannot make in a set that had none before it forgets again.
        """

    async def remove(self, index: AddedIndex, limits: AdviceLimits) -> None:
        """Forget it and remove it from all sets.  Idempotent."""
