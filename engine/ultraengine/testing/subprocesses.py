"""Runs a module of this package in fresh interpreters whose answers must not differ.

They differ in their hash seed: what depends on ``hash()`` of a string or on the order of a set
comes out differently.  And every second one runs without the engine's compiled parts.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

HASH_SEEDS: Final = ("1", "2")
TIMEOUT_S: Final = 120.0


def run_under_seeds(
    module: str, arguments: Sequence[str], data: bytes = b"", seeds: Sequence[str] = HASH_SEEDS
) -> list[bytes]:
    """Standard output of ``python -m module arguments``, once per hash seed, side by side.

    Raises AssertionError with the error output when a process fails.
    """
    command = (sys.executable, "-m", module, *arguments)
    path = os.pathsep.join(entry or "." for entry in sys.path)
    processes = [
        subprocess.Popen(  # noqa: S603  (our own module, in our own interpreter)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": path,
                "ULTRA_PURE": str(number % 2),
            },
        )
        for number, seed in enumerate(seeds)
    ]
    outputs: list[bytes] = []
    try:
        for process, seed in zip(processes, seeds, strict=True):
            output, errors = process.communicate(data, timeout=TIMEOUT_S)
            if process.returncode != 0:
                text = errors.decode(errors="replace")
                raise AssertionError(f"a run with hash seed {seed} failed:\n{text}")
            outputs.append(output)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return outputs
