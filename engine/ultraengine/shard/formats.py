"""What this build writes: a build that names the same formats reads all of it.

An upgrade can be taken back while both builds name the same ones (`model/candidate.py`).
"""

from typing import Final

from ultraengine.log.frame import VERSION as FRAME
from ultraengine.log.identity import FORMAT as DIRECTORY
from ultraengine.log.segment import VERSION as SEGMENT
from ultraengine.snapshot.format import VERSION as SNAPSHOT
from ultraengine.snapshot.manifest import FORMAT as MANIFEST

FORMATS: Final = (
    f"directory={DIRECTORY},segment={SEGMENT},frame={FRAME},snapshot={SNAPSHOT},manifest={MANIFEST}"
)
