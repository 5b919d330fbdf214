"""The Prometheus texts of several processes as one: families joined, a label for each process.

A scrape sees one text, in which a family may stand once only; the same family comes from
every process.  So samples are gathered under their family's first header, and each gets the
label ``process``, which no family of the engine has.
"""

import re
from collections.abc import Mapping
from typing import Final

LABEL: Final = "process"
_SAMPLE: Final = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(\{)?(.*)", re.DOTALL)


def join(texts: Mapping[str, str]) -> str:
    """One text from those of several processes, by the name of each.

    A line that is no sample and no header is left out.
    """
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts.items():
        label = f'{LABEL}="{_escape(process)}"'
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                if family not in samples:
                    headers[family], samples[family] = [], []
                kind = line[:7]
                if not any(known.startswith(kind) for known in headers[family]):
                    headers[family].append(line)
            elif line and not line.startswith("#") and family:
                found = _SAMPLE.fullmatch(line)
                if found is not None:
                    name, opened, rest = found.groups()
                    inner = f"{label},{rest}" if opened else f"{label}}}{rest}"
                    samples[family].append(f"{name}{{{inner}")
    return "".join("\n".join([*headers[family], *samples[family]]) + "\n" for family in samples)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
