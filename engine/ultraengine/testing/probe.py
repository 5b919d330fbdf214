"""What `ultraengine.testing` runs in processes of its own; prints one digest.

python -m ultraengine.testing.probe layout FILE MODULE CLASS
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def load_module(path: Path, name: str) -> ModuleType:
    """A module by its file, whether or not it could be imported by name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def layout_fingerprint(path: str, module_name: str, class_name: str) -> str:
    """``fingerprint()`` of a `LayoutContract` class in a test file."""
    found: Any = load_module(Path(path), module_name)
    for part in class_name.split("."):
        found = getattr(found, part)
    return str(found().fingerprint())


def main(arguments: list[str]) -> None:
    """Write the answer of the probe named by the first argument to standard output."""
    probes = {"layout": layout_fingerprint}
    sys.stdout.write(probes[arguments[0]](*arguments[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
