"""Runs domain code and refuses what would make it answer differently elsewhere.

    with Sandbox():
        decide(state, data, context)

    @in_sandbox                     # or a function of its own
    Bench(sandboxed(DOMAIN))        # or every function of a domain

Three nets, each catching what slips through the others:

* the interpreter's profile hook sees each call of a clock, a random source, the environment
  or a thread by any name it goes by, and refuses it before it happens;
* its audit hook sees files, sockets and processes, also when C code opens them;
* the source check (`source_check.py`) sees what does not run, and what runs unseen: a clock
  called by C code (``map(time.time, …)``), iteration over sets, sums of floats.

A refusal is raised in the code that did it, and again at the end of the sandbox if that
code swallowed it.  One sandbox works in the thread that entered it; entering costs a few
microseconds, each call inside about one.  Not for production: there, replays and replicas
compare outcomes.
"""

import _thread
import functools
import gc
import os
import random
import sys
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

from ultraengine.model.domain import Domain
from ultraengine.testing import refusal
from ultraengine.testing.refusal import Advice, Finding, Refused

_CLOCKS: Final = (
    time.time,
    time.time_ns,
    time.monotonic,
    time.monotonic_ns,
    time.perf_counter,
    time.perf_counter_ns,
    time.process_time,
    time.process_time_ns,
    time.thread_time,
    time.thread_time_ns,
    time.clock_gettime,
    time.clock_gettime_ns,
    time.sleep,
    time.localtime,
    time.gmtime,
    time.ctime,
    time.asctime,
    time.strftime,
    time.mktime,
)
_CHANCE: Final = (
    os.urandom,
    random.random,
    random.getrandbits,
    random.SystemRandom.getrandbits,
    random.SystemRandom.random,
)
_IDENTITIES: Final = (uuid.uuid1, uuid.uuid4)
_ENVIRONMENT: Final = (
    os.getenv,
    type(os.environ).__getitem__,
    type(os.environ).__iter__,
    type(os.environ).__setitem__,
    type(os.environ).__delitem__,
    type(os.environ).__len__,
    os.getpid,
    os.getcwd,
    os.uname,
)
_THREADS: Final = (
    threading.Thread.start,
    threading.Thread.__init__,
    _thread.start_new_thread,
)
_FILES: Final = (os.stat, os.lstat, os.access)
"""Looks at files that raise no audit event."""
_DIRECT: Final = {
    print: refusal.OUTPUT,
    id: refusal.ADDRESSES,
    hash: refusal.HASHES,
}
"""Refused only when domain code itself calls them: the standard library may."""
_DATES: Final = frozenset({"now", "utcnow", "today"})


def _table() -> tuple[dict[Any, Advice], dict[CodeType, Advice]]:
    """What is refused: C functions by themselves, Python functions by their code."""
    c_functions: dict[Any, Advice] = dict(_DIRECT)
    codes: dict[CodeType, Advice] = {}
    for functions, advice in (
        (_CLOCKS, refusal.CLOCK),
        (_CHANCE, refusal.CHANCE),
        (_IDENTITIES, refusal.IDENTITY),
        (_ENVIRONMENT, refusal.ENVIRONMENT),
        (_THREADS, refusal.THREADS),
        (_FILES, refusal.WORLD),
    ):
        for function in functions:
            code = getattr(function, "__code__", None)
            if code is None:
                c_functions[function] = advice
            else:
                codes[code] = advice
    return c_functions, codes


_C_FUNCTIONS, _CODES = _table()
_UNSEEDED: Final = random.Random.__init__.__code__
_EVENTS: Final = (
    "open",
    "os.",
    "socket.",
    "subprocess.",
    "shutil.",
    "tempfile.",
    "glob.",
    "sqlite3.",
    "mmap.",
    "fcntl.",
    "signal.",
    "builtins.input",
    "builtins.breakpoint",
)
"""Audit events of the world, or the beginning of their names."""
_LIBRARY: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib")
)
_SITE: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("purelib", "platlib")
)
_DOMAIN_SIDE: Final = ("ultraengine.domains.", "ultraengine.execution.layouts.")

_entered: dict[int, "Sandbox"] = {}
"""The sandbox in force, by thread."""


class Sandbox:
    """A context in which clocks, chance, the environment, files and threads are refused.

    Raises `Refused`.  Sandboxes may be nested; the outermost is in force.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._previous: Any = None
        self._collecting = False
        self._outer: Sandbox | None = None

    def __enter__(self) -> Self:
        """Start refusing."""
        _install_audit_hook()
        thread = threading.get_ident()
        self._outer = _entered.get(thread)
        if self._outer is None:
            _entered[thread] = self
            # A collection would run whatever other code has hung on it, in here.
            self._collecting = gc.isenabled()
            gc.disable()
            self._previous = sys.getprofile()
            sys.setprofile(self._profile)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop refusing; raise what the code inside has swallowed."""
        if self._outer is None:
            sys.setprofile(self._previous)
            if self._collecting:
                gc.enable()
            del _entered[threading.get_ident()]
            if self.findings and not isinstance(error, Refused):
                raise Refused(self.findings[0]) from error

    def refuse(self, frame: FrameType | None, what: str, advice: Advice) -> None:
        """Raise `Refused` for the domain code that led here; return for the engine's own."""
        user = _user_frame(frame)
        if user is None:
            return
        code = user.f_code
        finding = Finding(code.co_filename, user.f_lineno, code.co_qualname, what, advice)
        self.findings.append(finding)
        raise Refused(finding)

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            advice = _C_FUNCTIONS.get(function)
            if advice is None and function.__name__ in _DATES and _is_date(function.__self__):
                advice = refusal.CLOCK
            if advice is not None and (function not in _DIRECT or _is_user(frame)):
                self.refuse(frame, f"{_label(function)}()", advice)
        elif event == "call":
            code = frame.f_code
            advice = _CODES.get(code)
            if advice is not None:
                self.refuse(frame.f_back, f"{_module_of(frame)}.{code.co_qualname}()", advice)
            elif code is _UNSEEDED and frame.f_locals.get("x") is None:
                self.refuse(frame.f_back, "random.Random()", refusal.CHANCE)


def in_sandbox(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, run in a sandbox; a generator is read to its end in there."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with Sandbox():
            result = function(*arguments)
            return list(result) if hasattr(result, "gi_frame") else result

    return call


def sandboxed(domain: Domain) -> Domain:
    """The same domain, each of whose functions runs in a sandbox."""
    return _SandboxedDomain(domain)


class _SandboxedDomain:
    """Passes everything on; what is called, is called in a sandbox."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.commands = [_wrapped(spec) for spec in domain.commands]
        self.queries = [_wrapped(spec) for spec in domain.queries]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._domain, name)
        return in_sandbox(found) if name in _METHODS else found


_METHODS: Final = frozenset(
    {
        "new_state",
        "evolve",
        "focus",
        "dump",
        "changes",
        "mark",
        "load",
        "due",
        "expire",
        "check",
    }
)


_TYPES: Final = frozenset({"data", "params", "result"})
"""Fields of specs that can be called but are no functions."""


def _wrapped(spec: Any) -> Any:
    """A command or query whose functions run in a sandbox."""
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    for name, value in fields.items():
        if callable(value) and name not in _TYPES:
            fields[name] = in_sandbox(value)
    return type(spec)(**fields)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    # Asking for a frame raises an audit event of its own: events are chosen first.
    if event != "import" and not event.startswith(_EVENTS):
        return
    sandbox = _entered.get(threading.get_ident())
    if sandbox is None:
        return
    frame = sys._getframe(1)  # noqa: SLF001  (who did it; documented, if by an odd name)
    if event == "import":
        # C code imports its helpers late and in the caller's name: `_strptime` and the like.
        if _is_user(frame) and not str(arguments[0]).startswith("_"):
            sandbox.refuse(frame, f"import of {arguments[0]}", refusal.LATE_IMPORT)
    else:
        what = f"open({arguments[0]!r})" if event == "open" else event
        sandbox.refuse(frame, what, refusal.WORLD)


@functools.cache
def _install_audit_hook() -> None:
    """Once per process: an audit hook cannot be taken out again."""
    sys.addaudithook(_audit)


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """The nearest frame of domain code; None when the engine or an import stands between."""
    while frame is not None:
        if _is_engine(frame) or frame.f_code.co_filename.startswith("<frozen importlib"):
            return None
        if _is_user(frame):
            return frame
        frame = frame.f_back
    return None


def _is_engine(frame: FrameType) -> bool:
    name = _module_of(frame)
    return name.startswith("ultraengine.") and not name.startswith(_DOMAIN_SIDE)


def _is_user(frame: FrameType) -> bool:
    """Whether a frame is neither the standard library's nor the engine's."""
    if _is_engine(frame):
        return False
    path = frame.f_code.co_filename
    if path.startswith("<frozen "):
        return False
    return not path.startswith(_LIBRARY) or path.startswith(_SITE)


def _is_date(owner: object) -> bool:
    return isinstance(owner, type) and issubclass(owner, date)


def _label(function: Any) -> str:
    module = getattr(function, "__module__", None)
    if module in (None, "builtins"):
        return str(function.__qualname__)
    return f"{'os' if module == 'posix' else module}.{function.__qualname__}"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
