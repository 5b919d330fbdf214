"""The contract of state layouts, as tests to inherit (`docs/extending.md`).

    class TestMyLayout(LayoutContract):
        def make(self): return MyLayout()
        def key(self, number): return f"key-{number}"
        def value(self, number): return number

Every layout that is shipped passes it, and so must every layout of your own: snapshots,
replay and replicas rely on each sentence.
"""

import copy
import hashlib
import inspect
from random import Random
from typing import Any, Final

from ultraengine.model.layout import Layout
from ultraengine.model.limits import MIB
from ultraengine.testing.subprocesses import run_under_seeds

AnyLayout = Layout[Any, Any]
Step = tuple[str, int]

KEYS: Final = 40
STEPS: Final = 300
SEEDS: Final = range(8)
ENTRIES_MAX: Final = 1_000_000
CHUNK_BYTES_MAX: Final = MIB


class LayoutContract:
    """Tests for one layout: give ``make``, ``key`` and ``value``; the rest if it applies."""

    def make(self) -> AnyLayout:
        """A new empty layout."""
        raise NotImplementedError

    def key(self, number: int) -> Any:
        """A key for each number from 0; different numbers, different keys."""
        raise NotImplementedError

    def value(self, number: int) -> Any:
        """A value for each number from 0: a new object each time, all of them different."""
        raise NotImplementedError

    def change(self, layout: AnyLayout, key: Any, number: int) -> None:
        """Give `key`, which is there, another value.

        Override it when values are mutable: mutate the value, then ``layout.touch(key)``.
        """
        layout.put(key, self.value(number))

    def extra(self, layout: AnyLayout, number: int) -> None:
        """Whatever else the layout can do (edges, children): one write chosen by `number`."""

    def content(self, layout: AnyLayout) -> Any:
        """All content, comparable.  Override it when there is more than ``items``."""
        return copy.deepcopy(list(layout.items()))

    # What a reader sees.

    def test_an_empty_layout_has_no_content(self) -> None:
        """A slot that was never written leaves no trace in a snapshot."""
        layout = self.make()
        _same("len of an empty layout", len(layout), 0)
        _same("items of an empty layout", list(layout.items()), [])
        _same("dump of an empty layout", list(layout.dump()), [])
        _same("changes of an empty layout", list(layout.changes()), [])
        _same("get of an absent key", layout.get(self.key(0)), None)

    def test_it_holds_what_was_put_until_it_is_removed(self) -> None:
        """Against a dict, over random puts, changes and removals."""
        for seed in SEEDS:
            layout = self.make()
            model: dict[Any, Any] = {}
            for verb, number in _script(seed, ("put", "put", "change", "remove")):
                key = self.key(number % KEYS)
                self._apply(layout, verb, number)
                if verb == "put":
                    _same("get after put", layout.get(key), self.value(number))
                if verb == "remove":
                    model.pop(key, None)
                elif verb == "put" or key in model:
                    model[key] = copy.deepcopy(layout.get(key))
                _same("len", len(layout), len(model))
            for number in range(KEYS):
                key = self.key(number)
                _same("get", layout.get(key), model.get(key))
            _same("items", dict(layout.items()), model)

    # What a snapshot relies on.

    def test_a_dump_loads_into_an_equal_layout(self) -> None:
        """Equal content, equal dump, nothing counted as changed."""
        for seed in SEEDS:
            layout = self._scripted(seed)
            loaded = self._loaded(layout.dump())
            _same("content after load", self.content(loaded), self.content(layout))
            _same("len after load", len(loaded), len(layout))
            _same("dump after load", list(loaded.dump()), list(layout.dump()))
            _same("changes after load", list(loaded.changes()), [])

    def test_a_loaded_layout_goes_on_like_the_one_that_was_dumped(self) -> None:
        """Nothing that later operations need is missing from a dump."""
        for seed in SEEDS:
            layout = self._scripted(seed)
            layout.mark()
            loaded = self._loaded(layout.dump())
            for verb, number in _script(seed + 1000):
                self._apply(layout, verb, number)
                self._apply(loaded, verb, number)
            _same("content", self.content(loaded), self.content(layout))
            _same("dump", list(loaded.dump()), list(layout.dump()))
            _same("changes", list(loaded.changes()), list(layout.changes()))

    def test_changes_on_top_of_the_dump_at_mark_are_the_dump_now(self) -> None:
        """Through a chain of three increments, each loaded on top of those before."""
        for seed in SEEDS:
            layout = self._scripted(seed)
            restored = self._loaded(layout.dump())
            for increment in range(3):
                layout.mark()
                for verb, number in _script(seed * 10 + increment + 100)[: STEPS // 5]:
                    self._apply(layout, verb, number)
                for chunk in layout.changes():
                    restored.load(chunk)
                _same("content", self.content(restored), self.content(layout))
                _same("dump", list(restored.dump()), list(layout.dump()))

    def test_nothing_changed_since_mark_means_no_chunk(self) -> None:
        """An increment of a quiet slot is empty."""
        layout = self._scripted(0)
        layout.mark()
        _same("changes after mark", list(layout.changes()), [])

    def test_reading_changes_does_not_forget_them(self) -> None:
        """A snapshot that failed is taken again: only ``mark`` starts anew."""
        layout = self._scripted(0)
        _same("changes read twice", list(layout.changes()), list(layout.changes()))

    def test_each_write_is_a_change(self) -> None:
        """Put, change in place and removal, each alone after a mark."""
        for verb in ("put", "change", "remove"):
            layout = self.make()
            for number in range(5):
                layout.put(self.key(number), self.value(number))
            restored = self._loaded(layout.dump())
            layout.mark()
            self._apply(layout, verb, 3 + KEYS)
            chunks = list(layout.changes())
            _true(f"a {verb} leaves changes", bool(chunks))
            for chunk in chunks:
                restored.load(chunk)
            _same(f"content after {verb}", self.content(restored), self.content(layout))
            _true(
                f"a {verb} of one key is smaller than a dump of five",
                sum(map(len, chunks)) < sum(map(len, layout.dump())),
            )

    def test_a_load_replaces_and_removes_only_what_it_names(self) -> None:
        """Changes of keys 1 and 2 leave keys 0 and 3 of the target as they are."""
        source, target = self.make(), self.make()
        for number in (1, 2):
            source.put(self.key(number), self.value(number))
        source.mark()
        source.put(self.key(1), self.value(101))
        source.remove(self.key(2))
        for number in (0, 1, 2, 3):
            target.put(self.key(number), self.value(number + 50))
        for chunk in source.changes():
            target.load(chunk)
        _same("a named key is replaced", target.get(self.key(1)), self.value(101))
        _same("a removed key is gone", target.get(self.key(2)), None)
        for number in (0, 3):
            kept = target.get(self.key(number))
            _same("a key that is not named stays", kept, self.value(number + 50))

    def test_chunks_are_bounded(self) -> None:
        """Neither ``dump`` nor ``changes`` gives a chunk of more than a MiB."""
        layout = self.make()
        sample = 1000
        for number in range(sample):
            layout.put(self.key(number), self.value(number))
        sampled = sum(map(len, layout.dump()))
        for number in range(sample, min(ENTRIES_MAX, sample * 2 * MIB // sampled)):
            layout.put(self.key(number), self.value(number))
        total = sum(map(len, layout.dump()))
        for name, chunks in (("dump", list(layout.dump())), ("changes", list(layout.changes()))):
            _true(f"{name}: more than one chunk for {total} bytes", len(chunks) > 1)
            largest = max(map(len, chunks))
            _true(f"{name}: a chunk of {largest} bytes", largest <= CHUNK_BYTES_MAX)
        loaded = self._loaded(layout.dump())
        _same("dump", _digest(loaded), _digest(layout))

    # What replicas and replays rely on.

    def test_the_dump_does_not_depend_on_how_the_content_came_about(self) -> None:
        """Other orders of insertion, and keys that came and went, leave no trace."""
        numbers = list(range(KEYS))
        plain = self.make()
        for number in numbers:
            plain.put(self.key(number), self.value(number))
        for seed in SEEDS:
            Random(seed).shuffle(numbers)  # noqa: S311  (repeatable, not secret)
            other = self.make()
            for number in (*numbers, *range(KEYS, 2 * KEYS)):
                other.put(self.key(number), self.value(number + 1))
            for number in range(KEYS, 2 * KEYS):
                other.remove(self.key(number))
            for number in reversed(numbers):
                other.put(self.key(number), self.value(number))
            _same("items", list(other.items()), list(plain.items()))
            _same("dump", list(other.dump()), list(plain.dump()))

    def test_the_same_writes_give_the_same_dump_and_changes(self) -> None:
        """In one process, with objects at other addresses."""
        first, second = self._scripted(3), self._scripted(3)
        _same("dump", list(first.dump()), list(second.dump()))
        _same("changes", list(first.changes()), list(second.changes()))

    def test_the_dump_does_not_depend_on_the_hash_seed(self) -> None:
        """Two processes whose hashes of strings differ write the same bytes."""
        kind = type(self)
        digests = run_under_seeds(
            "ultraengine.testing.probe",
            ("layout", inspect.getfile(kind), kind.__module__, kind.__qualname__),
        )
        _same("dumps and changes under two hash seeds", digests[0], digests[1])
        _same("dumps and changes in a process of its own", digests[0].decode(), self.fingerprint())

    def fingerprint(self) -> str:
        """Digest of dump and changes after a fixed script; what other processes compare."""
        digest = hashlib.blake2b(digest_size=16)
        layout = self._scripted(5)
        for chunk in (*layout.dump(), *layout.changes()):
            digest.update(len(chunk).to_bytes(4, "little") + chunk)
        return digest.hexdigest()

    def _apply(self, layout: AnyLayout, verb: str, number: int) -> None:
        key = self.key(number % KEYS)
        if verb == "put":
            layout.put(key, self.value(number))
        elif verb == "remove":
            layout.remove(key)
        elif verb == "extra":
            self.extra(layout, number)  # noqa: S610  (no Django)
        elif layout.get(key) is not None:
            self.change(layout, key, number)

    def _scripted(self, seed: int) -> AnyLayout:
        layout = self.make()
        for verb, number in _script(seed):
            self._apply(layout, verb, number)
        return layout

    def _loaded(self, chunks: Any) -> AnyLayout:
        layout = self.make()
        for chunk in chunks:
            layout.load(chunk)
        return layout


_VERBS: Final = ("put", "put", "put", "change", "remove", "extra", "extra")


def _script(seed: int, verbs: tuple[str, ...] = _VERBS) -> list[Step]:
    """A repeatable series of writes to `KEYS` keys."""
    random = Random(seed)  # noqa: S311  (repeatable, not secret)
    return [(random.choice(verbs), random.randrange(100 * KEYS)) for _ in range(STEPS)]


def _digest(layout: AnyLayout) -> bytes:
    return hashlib.blake2b(b"".join(layout.dump()), digest_size=16).digest()


def _same(what: str, found: object, wanted: object) -> None:
    """Raises AssertionError; a plain ``assert`` would say nothing outside of test modules."""
    if found != wanted:
        raise AssertionError(f"{what}: found {_short(found)}, wanted {_short(wanted)}")


def _true(sentence: str, holds: bool) -> None:  # noqa: FBT001  (the only argument besides the sentence)
    if not holds:
        raise AssertionError(f"does not hold: {sentence}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]} ... ({len(text)} characters)"
