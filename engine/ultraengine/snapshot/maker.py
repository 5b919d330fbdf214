"""Makes one snapshot from beginning to proof, given what is to be in it.

The same steps whoever runs them: a forked child, a thread, or the caller.  A maker only
reads what the store gave it, so a child can use the parent's.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ultraengine.ports import Disk
from ultraengine.snapshot.compact import BATCH_BESIDE_LOOP_BYTES, BATCH_BYTES
from ultraengine.snapshot.files import (
    ChainFile,
    Draft,
    Written,
    merge_chain,
    verify_chain,
    write_file,
)
from ultraengine.snapshot.image import Image, Section, state_hash
from ultraengine.snapshot.migrate import Migrations
from ultraengine.snapshot.store import SnapshotStore

Pause = Callable[[int], None]
"""Called with the bytes written since the last call; may sleep to hold a rate."""


class Maker:
    """Writes and proves the drafts of one store."""

    def __init__(
        self,
        store: SnapshotStore,
        *,
        new_image: Callable[[], Image] | None,
        migrations: Migrations,
    ) -> None:
        self._store: Final = store
        self._new_image: Final = new_image
        self._migrations: Final = migrations

    @property
    def folds(self) -> bool:
        """Whether merges are folded, because there is no image to load and dump."""
        return self._new_image is None

    def from_image(
        self, disk: Disk, image: Image, draft: Draft, below: Sequence[ChainFile], pause: Pause
    ) -> Written:
        """Snapshot an image that nobody changes meanwhile."""

        def hash_of(content: bytes) -> bytes | None:
            if not below:
                return content
            if not self._store.options.hash_increments:
                return None
            return state_hash(image.sections(full=True))

        sections = image.sections(full=not below)
        codecs = self._store.codecs
        written = write_file(disk, draft, sections, codecs, state_hash=hash_of, pause=pause)
        return self._proved(disk, draft, below, written)

    def from_sections(
        self,
        disk: Disk,
        sections: Iterable[Section],
        draft: Draft,
        below: Sequence[ChainFile],
        pause: Pause,
    ) -> Written:
        """Snapshot sections as they come, on a thread beside the loop that gives them.

        The state hash of an increment stays unknown.
        """

        def hash_of(content: bytes) -> bytes | None:
            return None if below else content

        codecs = self._store.codecs
        written = write_file(disk, draft, sections, codecs, state_hash=hash_of, pause=pause)
        return self._proved(disk, draft, below, written, batch_bytes=BATCH_BESIDE_LOOP_BYTES)

    def from_chain(
        self, disk: Disk, chain: Sequence[ChainFile], draft: Draft, pause: Pause
    ) -> Written:
        """Merge a chain into a full image."""
        written = merge_chain(
            disk,
            chain,
            draft,
            self._store.codecs,
            self._store.key_of,
            new_image=self._new_image,
            migrations=self._migrations,
            batch_bytes=self._store.options.scratch_bytes,
            pause=pause,
        )
        return self._proved(disk, draft, (), written)

    def _proved(
        self,
        disk: Disk,
        draft: Draft,
        below: Sequence[ChainFile],
        written: Written,
        *,
        batch_bytes: int = BATCH_BYTES,
    ) -> Written:
        verify_chain(
            disk,
            [*below, ChainFile(path=draft.temporary, data_key=draft.data_key)],
            self._store.codecs,
            self._store.key_of,
            expected=written.footer,
            new_image=self._new_image,
            migrations=self._migrations,
            batch_bytes=min(batch_bytes, self._store.options.scratch_bytes),
        )
        return written
