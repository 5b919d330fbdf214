"""The same transfer in PostgreSQL (a stored function) and in Redis (a Lua script).

Both check what a ledger must check at the least: both accounts exist, they differ, the
amount is positive, and the source may go to its limit; both keep the transfer under its id.
"""

import re
import subprocess
from pathlib import Path

from servers import find

ACCOUNTS = 10_000

POSTGRES_SCHEMA = f"""
create table account (id int primary key, balance bigint not null, min_balance bigint);
create table transfer (id bigserial primary key, source int not null, target int not null,
  amount bigint not null, at timestamptz not null default now());
insert into account select n, 0, null from generate_series(0, {ACCOUNTS - 1}) n;
create function transfer(source_id int, target_id int, units bigint) returns bigint
language plpgsql as $$
declare left_over bigint; lowest bigint; transfer_id bigint;
begin
  if source_id = target_id or units <= 0 then raise exception 'malformed'; end if;
  -- Lock in one order, so that two transfers never wait for each other.
  perform 1 from account where id in (source_id, target_id) order by id for update;
  update account set balance = balance - units where id = source_id
    returning balance, min_balance into left_over, lowest;
  if not found then raise exception 'no source'; end if;
  if lowest is not null and left_over < lowest then raise exception 'exceeds balance'; end if;
  update account set balance = balance + units where id = target_id;
  if not found then raise exception 'no target'; end if;
  insert into transfer (source, target, amount) values (source_id, target_id, units)
    returning id into transfer_id;
  return transfer_id;
end $$;
vacuum analyze account;
"""

POSTGRES_SCRIPT = f"""\\set source random(0, {ACCOUNTS // 2 - 1})
\\set target random({ACCOUNTS // 2}, {ACCOUNTS - 1})
\\set units random(1, 999)
select transfer(:source, :target, :units);
"""

REDIS_LUA = (
    "local s=redis.call('HGET',KEYS[1],'b') local t=redis.call('HGET',KEYS[2],'b') "
    "if not s or not t or KEYS[1]==KEYS[2] then return 0 end "
    "local n=tonumber(ARGV[1]) if n<=0 then return redis.error_reply('malformed') end "
    "local m=redis.call('HGET',KEYS[1],'m') "
    "if m and tonumber(s)-n<tonumber(m) then return redis.error_reply('exceeds balance') end "
    "redis.call('HINCRBY',KEYS[1],'b',-n) redis.call('HINCRBY',KEYS[2],'b',n) "
    "local id=redis.call('INCR','transfers') "
    "redis.call('HSET','t:'..id,'s',KEYS[1],'t',KEYS[2],'n',n) return id"
)
REDIS_OPEN = (
    f"for n=0,{ACCOUNTS - 1} do redis.call('HSET',string.format('a:%012d',n),'b',0) end return 1"
)


def run(command: list[str]) -> str:
    """Run a program to its end.  Raises SystemExit with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed: {done.stderr[-2000:]}")
    return done.stdout


def postgres_prepare(address: list[str]) -> None:
    """Schema and accounts."""
    run([find("psql"), *address, "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-c",
         POSTGRES_SCHEMA.split("vacuum", maxsplit=1)[0]])  # fmt: skip
    run([find("psql"), *address, "-d", "postgres", "-q", "-c", "vacuum analyze account"])


def postgres_transfers(
    address: list[str], work: Path, clients: int, seconds: int
) -> dict[str, object]:
    """pgbench with prepared statements; per-transaction latencies from its own log."""
    script = work / "transfer.sql"
    script.write_text(POSTGRES_SCRIPT)
    prefix = work / f"pgbench-{clients}"
    for old in work.glob(f"{prefix.name}.*"):
        old.unlink()
    said = run([find("pgbench"), *address, "-n", "-M", "prepared", "-f", str(script),
                "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds),
                "-l", f"--log-prefix={prefix}", "postgres"])  # fmt: skip
    rate = re.search(r"tps = ([0-9.]+)", said)
    latencies = sorted(
        int(line.split()[2]) / 1e3
        for log in work.glob(f"{prefix.name}.*")
        for line in log.read_text().splitlines()
    )
    if rate is None or not latencies:
        raise SystemExit(f"pgbench printed no rate: {said[-500:]}")
    return {
        "transfers_per_s": round(float(rate[1])),
        "p50_ms": round(latencies[len(latencies) // 2], 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)], 3),
    }


def redis_prepare(port: int) -> str:
    """Accounts and script; returns the script's name."""
    client = [find("redis-cli"), "-p", str(port)]
    run([*client, "EVAL", REDIS_OPEN, "0"])
    return run([*client, "SCRIPT", "LOAD", REDIS_LUA]).strip()


def redis_transfers(
    port: int, script: str, clients: int, pipeline: int, count: int
) -> dict[str, object]:
    """redis-benchmark; its percentiles are per command of a pipeline."""
    said = run([find("redis-benchmark"), "-p", str(port), "-c", str(clients), "-P", str(pipeline),
                "-n", str(count), "-r", str(ACCOUNTS), "--csv", "EVALSHA", script, "2",
                "a:__rand_int__", "a:__rand_int__", "7"])  # fmt: skip
    rows = [line.replace('"', "").split(",") for line in said.splitlines() if line.count(",") >= 7]
    # A script's name and keys may hold commas nowhere, so the last seven columns are figures.
    rate, _average, _minimum, p50, _p95, p99, _maximum = (float(cell) for cell in rows[-1][-7:])
    return {"transfers_per_s": round(rate), "p50_ms": p50, "p99_ms": p99}
