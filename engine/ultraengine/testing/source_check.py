"""Reads the source of a domain and names what could make it answer differently elsewhere.

    for finding in check_domain(DOMAIN):
        print(finding)

A reading of the syntax tree, so it also sees what a test never runs: imports, mentions of
``hash`` or ``open``, iteration over sets, sums of floats, changed module state.  It follows
the domain's imports within its own package.  What it cannot know (the type of a value that
comes from elsewhere) the runtime sandbox and the runs under two hash seeds are for.

A line that is right for a reason that the check cannot see says so:

    for name in names:  # deterministic: the order only picks log lines
"""

import ast
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

from ultraengine.model.domain import Domain
from ultraengine.testing.refusal import ALLOWED_MODULES, Finding
from ultraengine.testing.source_names import own_imports
from ultraengine.testing.source_visitor import SourceVisitor

_EXCUSE: Final = re.compile(r"#\s*deterministic:\s*\S")


def check_domain(domain: Domain, *, allow: Iterable[str] = ()) -> list[Finding]:
    """Findings in the modules of a domain, by path and line; `allow` names more modules."""
    findings: list[Finding] = []
    for module in domain_modules(domain):
        findings += check_module(module, allow=allow)
    return sorted(findings, key=lambda finding: (finding.path, finding.line, finding.what))


def check_module(module: ModuleType, *, allow: Iterable[str] = ()) -> list[Finding]:
    """Findings in one module.  Raises ValueError for a module without source."""
    path = getattr(module, "__file__", None)
    if path is None or not path.endswith(".py"):
        raise ValueError(f"no source of {module.__name__}")
    source = Path(path).read_text(encoding="utf-8")
    return check_source(source, path=path, package=own_package(module), allow=allow)


def check_source(
    source: str, *, path: str = "<source>", package: str = "", allow: Iterable[str] = ()
) -> list[Finding]:
    """Findings in one file.  `package` is the one whose modules it may import freely."""
    tree = ast.parse(source, filename=path)
    allowed = ALLOWED_MODULES | frozenset(allow)
    visitor = SourceVisitor(tree, path=path, package=package, allowed=allowed)
    lines = source.splitlines()
    return [finding for finding in visitor.findings if not _EXCUSE.search(lines[finding.line - 1])]


def own_package(module: ModuleType) -> str:
    """The package that a domain's modules may import from: its own.

    That is everything below its top-level package; of the engine's own, only the domain's.
    """
    package = module.__package__ or module.__name__
    return package if package.partition(".")[0] == "ultraengine" else package.partition(".")[0]


def domain_modules(domain: Domain) -> list[ModuleType]:
    """The domain's module, those of its handlers, and what these import of its own package."""
    first = sys.modules[type(domain).__module__]
    own = own_package(first)
    names = [first.__name__]
    for spec in domain.commands:
        handlers = (spec.prepare, spec.guard, spec.decide, spec.decide_item, spec.fold)
        names += [handler.__module__ for handler in handlers if handler is not None]
    found: dict[str, ModuleType] = {}
    while names:
        module = _module(names.pop())
        if module.__name__ in found:
            continue
        if not str(module.__file__).endswith(".py"):
            continue  # Compiled: the suite compares what it does with the Python beside it.
        found[module.__name__] = module
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        names += own_imports(ast.parse(source), module.__package__ or "", own)
    return list(found.values())


def _module(name: str) -> ModuleType:
    """The module of this name, or the one that holds a thing of this name."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return _module(name.rpartition(".")[0])
