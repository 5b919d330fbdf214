"""`make mutants`: break pure modules of log and execution, and see whether tests notice.

    python hack/mutants.py [--count 300] [--seed 1] [--only PART_OF_A_NAME]

Draws a sample of mutmut's mutants, runs the package's unit tests against each, and writes the
survivors with their differences to `mutants/survivors.md`.  A survivor is a question: does a
test lack, or does the change not matter?  mutmut wants sources below `src/`, so it works on a
copy of the tree in `mutants/`; nothing else is touched.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "mutants" / "work"
BIN = Path(sys.executable).parent
MEMORY_BYTES_MAX = 4 << 30
"""Address space of a mutant: a loop that no longer ends must not take the machine's memory."""
MODULES = {
    "log": ("digest", "frame", "identity", "index", "mark", "recovery", "retention", "segment",
            "serializer", "survey"),
    "execution": ("dedup", "executor", "packed", "pipeline", "registry", "slots", "system"),
}  # fmt: skip
CONFIG = """
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
timeout = 300
markers = ["root: needs root", "slow: more than ten seconds"]

[tool.mutmut]
source_paths = ["src/"]
also_copy = ["src", "tests"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
"""


def prepare() -> None:
    """Copy the tree into the layout that mutmut understands."""
    shutil.rmtree(WORK, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "e2e")
    shutil.copytree(ROOT / "engine", WORK / "src", ignore=ignored)
    adapters = ROOT / "platform_adapters" / "ultraengine_adapters"
    shutil.copytree(adapters, WORK / "src" / adapters.name, ignore=ignored)
    shutil.copytree(ROOT / "tests", WORK / "tests", ignore=ignored)
    modules = [
        f"src/ultraengine/{package}/{name}.py"
        for package, names in MODULES.items()
        for name in names
    ]
    tests = [f"tests/unit/{package}" for package in MODULES]
    config = CONFIG.format(modules=json.dumps(modules), tests=json.dumps(tests))
    (WORK / "pyproject.toml").write_text(config)


def bound_memory() -> None:
    """Called in the child before it becomes mutmut."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))


def mutmut(*arguments: str) -> str:
    """Run mutmut in the copy; returns what it printed."""
    done = subprocess.run(
        [BIN / "mutmut", *arguments],
        cwd=WORK,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=bound_memory,
        # Plain Python is what is mutated, so it must be what runs.
        env={**os.environ, "ULTRA_PURE": "1"},
    )
    with (WORK / "mutmut.log").open("a") as log:
        log.write(done.stdout)
    return done.stdout


def exit_codes() -> dict[str, int | None]:
    """Every mutant with the exit code of its tests; None when they have not run."""
    found: dict[str, int | None] = {}
    for meta in sorted((WORK / "mutants").rglob("*.meta")):
        found.update(json.loads(meta.read_text())["exit_code_by_key"])
    return found


def main() -> int:
    """Draw, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=300, help="mutants to run (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (%(default)s)")
    parser.add_argument("--only", default="", help="part of a mutant's name, as log.frame")
    options = parser.parse_args()

    prepare()
    print("mutants: generating, and running the tests once without any", flush=True)
    mutmut("run", "--max-children", "1", "no.such.mutant")
    names = sorted(name for name in exit_codes() if options.only in name)
    if not names:
        print(f"mutants: none; see {WORK / 'mutmut.log'}", file=sys.stderr)
        return 1
    sample = sorted(random.Random(options.seed).sample(names, min(options.count, len(names))))
    print(f"mutants: running {len(sample)} of {len(names)}", flush=True)
    mutmut("run", *sample)

    codes = exit_codes()
    survivors = [name for name in sample if codes[name] == 0]
    untested = [name for name in sample if codes[name] == 33]
    report = ROOT / "mutants" / "survivors.md"
    with report.open("w") as out:
        out.write(f"# Survivors: {len(survivors)} of {len(sample)}, seed {options.seed}\n")
        for name in survivors:
            out.write(f"\n## {name}\n\n```diff\n{mutmut('show', name).strip()}\n```\n")
        out.write("\n# Reached by no unit test\n\n" if untested else "")
        out.writelines(f"- {name}\n" for name in untested)
    print(f"mutants: {len(survivors)} of {len(sample)} survived, {len(untested)} were reached by")
    print(f"no unit test; see {report.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
