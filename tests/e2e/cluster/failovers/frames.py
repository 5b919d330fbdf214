"""Run in a copy's pod: what its log holds, one line for each frame of commands.

Each line is [sequence, epoch, first offset, chain before it, ids]; the chain names all that stands
before the frame, byte by byte.
"""

import json
import os
from pathlib import Path

from ultraengine.cli.directories import open_disk, open_secrets
from ultraengine.log import tools

DATA = Path(os.environ.get("ULTRA_DATA", "/data/ultra-data"))

if __name__ == "__main__":
    for frame in tools.dump(open_disk(DATA), open_secrets(None)):
        if frame["kind"] == "COMMANDS":
            ids = [one.get("id", "") for one in frame["commands"]]
            shown = [frame[name] for name in ("sequence", "epoch", "base_offset", "chain")]
            print(json.dumps([*shown, ids], separators=(",", ":")))  # noqa: T201 (its only product)
