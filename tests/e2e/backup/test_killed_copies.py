"""As an operator I lose a machine while it backs itself up, and another one while I restore.

A real engine with encrypted, keyed log and snapshots backs itself up to a real S3 server, and is
killed with SIGKILL in the midst of it, again and again; so is `ultra restore`.  What comes out
in the end answers every id that was told before the backup with the first reply.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.e2e.kills.test_kill_loop import ENVIRONMENT, Engine, Journal, check, send
from tests.servers.s3 import S3Server

KILLS = int(os.environ.get("BACKUP_KILLS", "4"))
"""Of backups, and of restores."""
COMMANDS = 60
SEED = 20_261_130
ULTRA = (sys.executable, "-m", "ultraengine.cli.main")


class BackedUp(Engine):
    """One that has a store."""

    def __init__(self, data: Path, log: Path, environment: Mapping[str, str]) -> None:
        super().__init__(data, log)
        self.environment = environment


async def sends(engine: Engine, journal: Journal, rng: random.Random) -> None:
    async with aiohttp.ClientSession() as session:
        names = [journal.next_id(f"k{rng.randrange(5)}") for _ in range(COMMANDS)]
        await asyncio.gather(*(send(session, engine, journal, name) for name in names))


async def backed_up(engine: Engine) -> dict[str, Any] | None:
    """The report; None when the engine ended before it came."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{engine.url}/admin/v1/backup", json={}) as answer,
        ):
            body: dict[str, Any] = await answer.json()
            assert answer.status == 200, body
            return dict(body["result"])
    except (aiohttp.ClientError, ConnectionError):
        return None


def restore(environment: Mapping[str, str], *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*ULTRA, "restore", *map(str, arguments), "-o", "json"],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("s3_keys")
async def test_kills_in_mid_backup_and_in_mid_restore_lose_nothing(
    s3_server: S3Server, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/disk").write_bytes(rng.randbytes(32))
    (tmp_path / "secrets/chain").write_bytes(rng.randbytes(32))
    keys = {
        "ULTRA_DOMAINS": ENVIRONMENT["ULTRA_DOMAINS"],
        "ULTRA_SECRETS": str(tmp_path / "secrets"),
    }
    place = s3_server.new_place()
    own = {
        **ENVIRONMENT, **keys, "ULTRA_MASTER_KEY": "disk", "ULTRA_CHAIN_KEY": "chain",
        "ULTRA_COMPRESS": "true",
    }  # fmt: skip
    engine = BackedUp(
        tmp_path / "data",
        tmp_path / "log",
        {**own, "ULTRA_BACKUP": place, "ULTRA_BACKUP_INTERVAL_S": "0"},
    )
    journal = Journal()
    await engine.start()
    for _ in range(KILLS):
        await sends(engine, journal, rng)
        asked = asyncio.create_task(backed_up(engine))
        await asyncio.sleep(rng.uniform(0.01, 0.5))
        await engine.kill()
        await asked
        await engine.start()
    await sends(engine, journal, rng)
    told = dict(journal.told)
    report = await backed_up(engine)
    assert report is not None
    # What comes after the backup is in the old engine alone.
    later = Journal()
    later.sent |= {"later": "k0"}
    async with aiohttp.ClientSession() as session:
        await send(session, engine, later, "later")
    assert await engine.stop() == 0

    target = ("--from", place, "--data", tmp_path / "new", "--engine-uid", "another")
    for _ in range(KILLS):
        process = restore(keys, *target)
        await asyncio.sleep(rng.uniform(0.5, 3.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (tmp_path / "new/shard-0000").exists():
            break
    else:
        process = restore(keys, *target)
        out, err = process.communicate()
        assert process.returncode == 0, err
        (done,) = json.loads(out)
        assert done["restored"]["offset_end"] == report["offset_end"]
        assert done["replayed"]["offset"] == done["restored"]["recorded_end"]
    assert [path.name for path in (tmp_path / "new").iterdir() if path.is_dir()] == ["shard-0000"]

    again = BackedUp(tmp_path / "new", tmp_path / "log-new", own)
    await again.start()
    async with aiohttp.ClientSession() as session:
        for name in told:
            await send(session, again, journal, name)
        later.told.clear()
        await send(session, again, later, "later")
    journal.sent |= later.sent
    await check(again, journal, rng)
    assert await again.stop() == 0
