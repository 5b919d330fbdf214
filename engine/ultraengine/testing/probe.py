"""What `ultraengine.testing` runs in processes of its own.

python -m ultraengine.testing.probe layout FILE MODULE CLASS    prints a digest
python -m ultraengine.testing.probe domain REFERENCE            scripts in, traces out
python -m ultraengine.testing.probe tables REFERENCE            scripts in, digests of rows out
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ultraengine.testing.determinism import trace
from ultraengine.testing.projections import rows_of_scripts


def load_module(path: Path, name: str) -> ModuleType:
    """A module by its file, whether or not it could be imported by name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def layout_fingerprint(path: str, module_name: str, class_name: str) -> bytes:
    """``fingerprint()`` of a `LayoutContract` class in a test file."""
    found: Any = load_module(Path(path), module_name)
    for part in class_name.split("."):
        found = getattr(found, part)
    return str(found().fingerprint()).encode()


def domain_traces(reference: str) -> bytes:
    """Traces of the scripts on standard input."""
    return trace(reference, sys.stdin.buffer.read())


def table_rows(reference: str) -> bytes:
    """Digests of the rows of the scripts on standard input."""
    return rows_of_scripts(reference, sys.stdin.buffer.read())


def main(arguments: list[str]) -> None:
    """Write the answer of the probe named by the first argument to standard output."""
    probes: dict[str, Callable[..., bytes]] = {
        "layout": layout_fingerprint,
        "domain": domain_traces,
        "tables": table_rows,
    }
    sys.stdout.buffer.write(probes[arguments[0]](*arguments[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
