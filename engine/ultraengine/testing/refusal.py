"""What domain code may not do, and what it does instead: one table for all checks.

A handler's answer must be a function of state, data and context (requirement 001 §1.3):
only then do replicas, replays and recovery agree.
"""

from typing import Final

import msgspec


class Advice(msgspec.Struct, frozen=True):
    """Why something is refused, and the way that is open."""

    because: str
    instead: str


class Finding(msgspec.Struct, frozen=True):
    """One refused thing, with its place."""

    path: str
    line: int
    within: str
    """Qualified name of the function, or ``<module>``."""
    what: str
    advice: Advice

    def __str__(self) -> str:
        """``path:line in function: what because; instead``."""
        place = f"{self.path}:{self.line} in {self.within}"
        return f"{place}: {self.what} {self.advice.because}; {self.advice.instead}"


class Refused(Exception):
    """Domain code reached out of its sandbox."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(str(finding))


CLOCK: Final = Advice(
    "reads a clock, which a replay reads at another time",
    "use context.time (microseconds since 1970, stamped on the command)",
)
ZONE: Final = Advice(
    "depends on the time zone of the machine",
    "give a time zone: datetime.fromtimestamp(seconds, tz=UTC)",
)
CHANCE: Final = Advice(
    "draws numbers that a replay draws differently",
    "use context.random, which is seeded by the command's offset",
)
IDENTITY: Final = Advice(
    "makes an id that a replay makes differently",
    "use context.new_id()",
)
ENVIRONMENT: Final = Advice(
    "reads the environment, which differs between machines",
    "put what decides into the command's data or into the state",
)
WORLD: Final = Advice(
    "touches the world outside of the state, which a replay must not repeat",
    "return events; use context.send for other shards and a projection for other systems",
)
OUTPUT: Final = Advice(
    "writes output on the writer's turn",
    "return what there is to say as result or event; hooks and metrics may report it",
)
THREADS: Final = Advice(
    "runs code at the same time or later, in no fixed order",
    "do all work in the handler itself",
)
HASHES: Final = Advice(
    "differs between processes for strings and objects",
    "use hashlib or zlib.crc32 on encoded bytes",
)
ADDRESSES: Final = Advice(
    "is an address in memory, different in every process",
    "use context.new_id(), or a number kept in the state",
)
SET_ORDER: Final = Advice(
    "shows the order of a set, which differs between processes and after a restart",
    "use sorted(...), or a dict with None as values",
)
FLOAT_SUM: Final = Advice(
    "adds floats, whose sum depends on order and on the version of Python",
    "use integers in minor units, or math.fsum",
)
MODULE_STATE: Final = Advice(
    "changes state of the module, which no snapshot or replay knows of",
    "keep it in the slot's state and change it in evolve",
)
CODE: Final = Advice(
    "runs code that no check has seen",
    "write it out",
)
LATE_IMPORT: Final = Advice(
    "imports a module while a command runs",
    "import it at the top of the module",
)
IMPORT: Final = Advice(
    "is not among the modules that are known to be deterministic",
    "pass it in at construction, or name it in `allow` if it neither waits nor draws",
)

BUILTINS: Final[dict[str, Advice]] = {
    "__import__": CODE,
    "breakpoint": WORLD,
    "compile": CODE,
    "eval": CODE,
    "exec": CODE,
    "hash": HASHES,
    "id": ADDRESSES,
    "input": WORLD,
    "open": WORLD,
    "print": OUTPUT,
}
"""Names of builtins that domain code may not even mention."""

MODULES: Final[dict[str, Advice]] = {
    "asyncio": THREADS,
    "concurrent": THREADS,
    "getpass": ENVIRONMENT,
    "io": WORLD,
    "locale": ENVIRONMENT,
    "logging": OUTPUT,
    "multiprocessing": THREADS,
    "numpy": FLOAT_SUM,
    "os": ENVIRONMENT,
    "pathlib": WORLD,
    "platform": ENVIRONMENT,
    "random": CHANCE,
    "secrets": CHANCE,
    "shutil": WORLD,
    "socket": WORLD,
    "sqlite3": WORLD,
    "structlog": OUTPUT,
    "subprocess": WORLD,
    "sys": ENVIRONMENT,
    "tempfile": WORLD,
    "threading": THREADS,
    "time": CLOCK,
    "urllib": WORLD,
    "uuid": IDENTITY,
    "weakref": ADDRESSES,
    "zoneinfo": ZONE,
}
"""Advice for well-known modules outside of `ALLOWED_MODULES`."""

ALLOWED_MODULES: Final = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "json",
        "math",
        "msgspec",
        "numbers",
        "operator",
        "re",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "typing_extensions",
        "ultraengine.execution.layouts",
        "ultraengine.execution.packed",
        "ultraengine.model",
        "xxhash",
        "zlib",
    }
)
"""What domain code may import besides its own package."""

ALLOWED_NAMES: Final = frozenset({("random", "Random"), ("uuid", "UUID")})
"""(module, name): types that are safe to name, from modules that are not."""
