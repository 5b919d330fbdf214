"""The settings of a shard's process: those of its front, but for what is the front's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ultraengine.config import SECRET_PREFIX, Config, behind_front
from ultraengine.model.ids import ShardId
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine_adapters.object_stores import below


def shard_config(config: Config, shard: ShardId, *, socket: Path, hop_key: Path) -> Config:
    """The configuration of one shard behind a front.

    Keys, quotas and spans belong to the front.
    """
    return msgspec.structs.replace(
        config,
        shard=shard,
        socket=socket,
        hop_key=hop_key,
        api_keys=None,
        tracing=False,
        end_with_input=True,
        archive=None if config.archive is None else below(config.archive, f"shard-{shard:04d}"),
        limits=behind_front(config.limits),
    )


def environment(
    config: Config, inherited: Mapping[str, str], search: Path, *, secrets: bool = False
) -> dict[str, str]:
    """The variables from which `Config.from_env` reads this configuration.

    Other variables are inherited; `search` is where the process finds a user's modules.  With
    `secrets`, all keys are, those too that only older segments and snapshots name.
    """
    found = {
        name: text
        for name, text in inherited.items()
        if not name.startswith("ULTRA_") or (secrets and name.startswith(SECRET_PREFIX))
    }
    paths = [str(search), *filter(None, [inherited.get("PYTHONPATH")])]
    found["PYTHONPATH"] = ":".join(paths)
    default = Config()
    for name in Config.__struct_fields__:
        value = getattr(config, name)
        if name != "limits" and value != getattr(default, name):
            found[f"ULTRA_{name.upper()}"] = _text(value)
    for name in DEFAULT_LIMITS.__struct_fields__:
        value = getattr(config.limits, name)
        if value != getattr(DEFAULT_LIMITS, name):
            found[f"ULTRA_LIMIT_{name.upper()}"] = _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
