"""Write what an image holds as a CycloneDX 1.6 document: its Debian and its Python packages.

    hack/lab/sbom.py IMAGE FILE

The image itself is asked, not the lock: what the base brings is listed too.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

DOCKER = ("docker", "run", "--rm", "--network=none", "--read-only")
DEBIAN = ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture}\n")
PYTHON = (
    "python",
    "-c",
    (
        "from importlib.metadata import distributions as all\n"
        "for each in all(): print(each.metadata['Name'].lower(), each.version)"
    ),
)


def lines(image: str, command: tuple[str, ...]) -> Iterator[list[str]]:
    program, *arguments = command
    done = subprocess.run(
        [*DOCKER, f"--entrypoint={program}", image, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return (line.split() for line in sorted(set(done.stdout.splitlines())))


def component(name: str, version: str, purl: str) -> dict[str, str]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def components(image: str) -> Iterator[dict[str, str]]:
    for name, version in lines(image, PYTHON):
        yield component(name, version, f"pkg:pypi/{name.replace('_', '-')}@{version}")
    for name, version, architecture in lines(image, DEBIAN):
        place = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        yield component(name, version, place)


def main(image: str, file: Path) -> None:
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "bom-ref": image}},
        "components": list(components(image)),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
