"""One frozen configuration, read from one table, all mistakes reported together.

`ultra serve` reads the environment (`ULTRA_*`); `ultra dev` builds a `Config` from its
options.  Limits are set as ``ULTRA_LIMIT_<NAME>``; `/v1/limits` shows what is in force.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

import msgspec

from ultraengine.model.errors import EngineError
from ultraengine.model.limits import DEFAULT_LIMITS, KIB, Limits
from ultraengine.model.reply import DurabilityName

SnapshotMode = Literal["fork", "cooperative", "inline"]
SnapshotCodecName = Literal["binary", "json"]
Addresses = tuple[tuple[str, int], ...]
LogVerify = Literal["tail", "all"]
DurableAt = Literal["local", "object"]
CompactionName = Literal["none", "time", "key"]
SECRET_PREFIX: Final = "ULTRA_SECRET_"  # noqa: S105  (where secrets are, and none)
OTHER_TABLES: Final = ("ULTRA_LIMIT_", SECRET_PREFIX)
"""Variables that are no settings: limits, and key material that the Secrets port reads."""


CATCH_UP_BYTES_PER_S_MIN: Final = 256 * KIB
"""A piece of a snapshot in a second: slower ones would be asked for again."""
BATCH_MARGIN_BYTES: Final = 64 * KIB
"""A front gives ids to commands that have none, so a batch for a shard may be a little larger
than the one that came."""


class ConfigErrors(EngineError):
    """All mistakes of a configuration; the process ends with exit code 2."""

    code = "MALFORMED"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a process needs to know before it starts."""

    data: Path = Path("ultra-data")
    """Directory of this replica's volume."""
    shard: int = 0
    """Number of this shard, 0 to 4095."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8080
    """Data API and health."""
    socket: Path | None = None
    """Unix socket to listen at instead of ``host`` and ports, for a front on this machine."""
    hop_key: Path | None = None
    """File with the secret that fronts and this shard share; callers are then who the front
    says, and nobody else is let in."""
    map: Path | None = None
    """File with the published shard map, read while ``data`` does not say what the shard owns."""
    engine_uid: str | None = None
    """Name of the engine that the directory must belong to; goes with ``map``."""
    replicas: Addresses = ()
    """``host:port`` of each copy of the shard, in the order of their numbers, with commas; the same
    for all of them.  Empty = one copy."""
    replica: int = 0
    """Number of this copy; it listens at its own address."""
    replica_host: str | None = None
    """Address to listen at for the other copies, where their name for this one is none of this
    machine's own, or is not known yet when it starts; its port counts all the same."""
    min_isr: int = 0
    """Copies, this one included, without which nothing is acknowledged; 0 = more than half.  When
    the number of copies changes, the number that is needed follows."""
    copies: int = 0
    """How many of the addresses' copies there are to be, the first ones; 0 = all.  Whoever leads
    takes copies in, or lets them go, one at a time."""
    adopt: bool = False
    """Let the directory of replica 0, if its log was not replicated, become the first copy.  There
    is no way back."""
    cluster: str | None = None
    """Name of the engine that the copies belong to; the place of the record must be of it too."""
    record: Path | None = None
    """Directory of the record of who leads; the same for all copies, on this machine or on a file
    system that keeps locks and renames."""
    record_lease: str | None = None
    """On Kubernetes instead: name of the Lease in the pod's namespace that keeps the record.  It
    has to be there; the pod's account needs get and update of this one."""
    replica_tls: Path | None = None
    """Directory with ``tls.crt``, ``tls.key`` and ``ca.crt``, with which copies prove to each other
    who they are, read again when they change; needed unless all addresses are of the loopback."""
    failover_s: float = 1.0
    """A leader that is silent for so long is replaced, and a copy is waited for no more."""
    catch_up_bytes_per_s: int = 67_108_864
    """What a leader sends, to all copies together, of a snapshot that fills one; 0 = as fast as it
    goes."""
    handover_s: float = 2.0
    """How long a leader that is asked to hand over, or is stopped, waits for a copy to hold
    everything; then it goes on, or stops without.  0 = a stop hands over to nobody."""
    url: str | None = None
    """Where clients reach this copy, told to those who ask another one; without it ``http://``, the
    host of its own address in ``ULTRA_REPLICAS`` and ``ULTRA_PORT``."""
    end_with_input: bool = False
    """Stop, as by SIGTERM, when standard input ends: for a shard that its front has started,
    so that it does not outlive it."""
    admin_port: int = 8081
    """Admin API and metrics; the same as ``port`` puts everything on one port."""
    domains: tuple[str, ...] = ("ultraengine.domains.ledger:DOMAIN",)
    """``package.module:ATTRIBUTE`` of each domain."""
    extensions: str | None = None
    """``package.module:ATTRIBUTE`` of an `extensions.Extensions`: a user's own parts."""
    durability: DurabilityName = "sync"
    """``sync``: a flush for each group before its replies; ``group``: likewise, and groups stay
    open for ``group_wait_s``; ``async``: replies before the flush, and says so."""
    group_wait_s: float = 0.002
    """`group`: how long a group stays open, at most 5 ms; `async`: time between two flushes."""
    eager_outcomes: bool = False
    """Answer commands, and reads of what they did, only when their outcomes are durable as well: a
    flush more for each group, and nothing that was told is ever decided again."""
    decide_again: str | None = None
    """Handler versions, as ``logged`` of a start that has ended with 73 names them, whose commands
    without a recorded outcome this release decides.  Where outcomes were eager, nobody was told of
    them; else somebody may have been told something else."""
    compress: bool = False
    """LZ4 for log frames."""
    log_verify: LogVerify = "tail"
    """What a start verifies of the log: ``tail``, all from the newest snapshot on, and that the
    segments before lead there; ``all``, every frame, as `ultra log verify` does."""
    secrets: Path | None = None
    """Directory with key material, one file per name; a name that has none there is looked for in
    ``ULTRA_SECRET_<NAME>``, as ``hex:…`` or ``base64:…``."""
    master_key: str | None = None
    """Name of the secret (32 bytes) that wraps segment and snapshot keys; None = not encrypted."""
    chain_key: str | None = None
    """Name of the secret that keys the chain hash; None = not keyed."""
    api_keys: Path | None = None
    """File of API keys; None = keyless, and then from loopback only."""
    snapshot_commands: int = 1_000_000
    """Snapshot after this many commands; 0 = never by count."""
    snapshot_interval_s: float = 3600.0
    """Snapshot at least this often while commands arrive; 0 = never by time."""
    snapshot_replay_s: float = 10.0
    """Snapshot when the tail would take this long to replay; 0 = never by replay time."""
    snapshot_mode: SnapshotMode = "fork"
    """``fork``, ``cooperative`` or ``inline``."""
    snapshot_codec: SnapshotCodecName = "binary"
    """``binary``, or ``json`` for people: a line for each section, larger and slower.  Both are
    read whatever is set; a codec of the extensions goes before."""
    snapshots_kept: int = 3
    """Full snapshots that are kept, with their increments."""
    snapshot_durable_at: DurableAt = "local"
    """Where a snapshot has to be before the log below it is cut: ``local``, on this disk;
    ``object``, in a backup as well, and the log waits for that one, however long it takes."""
    compaction: CompactionName = "none"
    """What happens to sealed segments below every snapshot and consumer: ``none`` removes them,
    ``time`` archives them, ``key`` archives the newest accepted command of each key."""
    archive: str | None = None
    """Where the archive is, a directory or ``s3://bucket/prefix``; needed for ``time`` and
    ``key``."""
    archive_keep_s: float = 0.0
    """`time`: archived segments are removed at this age; 0 = never."""
    backup: str | None = None
    """Where backups go, a directory or ``s3://bucket/prefix`` of this engine alone: by the clock
    and on demand, and each segment of the log as soon as it is complete."""
    backup_interval_s: float = 3600.0
    """A backup at least this often while commands arrive; 0 = on demand alone."""
    tracing: bool = False
    """Record spans of sampled requests, and of the flush and execution of their groups, with the
    process's OpenTelemetry tracer provider; needs
    the extra ``tracing``, and ``opentelemetry-instrument`` or code of one's own to export them."""
    dev: bool = False
    """Started as `ultra dev`: one port, loopback keyless, and it says so."""
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Read ``ULTRA_*``.  Raises `ConfigErrors` with every mistake at once."""
        values, mistakes = read_settings(cls, environ)
        if mistakes:
            raise ConfigErrors(mistakes)
        config = cls(**values)
        config.check()
        return config

    def check(self) -> None:
        """Raise `ConfigErrors` when settings contradict each other."""
        mistakes = []
        if not 0 <= self.shard < 4096:
            mistakes.append(f"ULTRA_SHARD: {self.shard} is not in 0..4095")
        if self.durability == "group" and not 0 < self.group_wait_s <= 0.005:
            mistakes.append("ULTRA_GROUP_WAIT_S: under `group` more than 0, at most 0.005")
        if self.decide_again is not None and not re.fullmatch("[0-9a-f]{16}", self.decide_again):
            mistakes.append("ULTRA_DECIDE_AGAIN: 16 hexadecimal digits")
        if self.group_wait_s <= 0:
            mistakes.append("ULTRA_GROUP_WAIT_S: must be more than 0")
        if self.limits.segment_bytes < 2 * self.limits.frame_bytes_max:
            mistakes.append("ULTRA_LIMIT_SEGMENT_BYTES: at least twice frame_bytes_max")
        mistakes += self._mistakes_of_a_shard_among_others()
        if self.replicas:
            mistakes += self._mistakes_of_a_replica()
        for name, value in (("MASTER", self.master_key), ("CHAIN", self.chain_key)):
            # Refused here: whoever looks for a secret tells its name when there is none.
            if value is not None and value.strip().startswith(("hex:", "base64:")):
                mistakes.append(f"ULTRA_{name}_KEY: the name of a secret, not the key itself")
        if self.compaction != "none" and self.archive is None:
            mistakes.append("ULTRA_ARCHIVE: needed when compaction is time or key")
        mistakes += self._mistakes_of_stores()
        if self.extensions is not None and self.extensions.count(":") != 1:
            mistakes.append("ULTRA_EXTENSIONS: package.module:ATTRIBUTE")
        if mistakes:
            raise ConfigErrors(mistakes)

    def _mistakes_of_stores(self) -> list[str]:
        mistakes = []
        for name, location in (("ARCHIVE", self.archive), ("BACKUP", self.backup)):
            if location is None:
                continue
            scheme, there, _ = location.partition("://")
            if not location.strip() or (there and scheme not in {"s3", "file"}):
                mistakes.append(f"ULTRA_{name}: neither s3://bucket/prefix nor a directory")
        if self.replicas and self.snapshot_durable_at != "local":
            mistakes.append("ULTRA_SNAPSHOT_DURABLE_AT: `local` with ULTRA_REPLICAS: of each copy")
        if self.snapshot_durable_at == "object" and self.backup is None:
            mistakes.append("ULTRA_BACKUP: needed when snapshots are to be durable at `object`")
        if self.backup_interval_s < 0:
            mistakes.append("ULTRA_BACKUP_INTERVAL_S: is negative")
        return mistakes

    def _mistakes_of_a_replica(self) -> list[str]:
        copies, mistakes = len(self.replicas), []
        if len(set(self.replicas)) != copies:
            mistakes.append("ULTRA_REPLICAS: addresses that are all different")
        if not 0 <= self.copies <= copies:
            mistakes.append(f"ULTRA_COPIES: {self.copies} is not in 0..{copies}")
        if not 0 <= self.replica < copies:
            mistakes.append(f"ULTRA_REPLICA: {self.replica} is not in 0..{copies - 1}")
        if not 0 <= self.min_isr <= copies:
            mistakes.append(f"ULTRA_MIN_ISR: {self.min_isr} is not in 0..{copies}")
        if not (self.cluster or "").strip():
            mistakes.append("ULTRA_CLUSTER: needed with ULTRA_REPLICAS")
        if (self.record is None) == (self.record_lease is None):
            mistakes.append("ULTRA_RECORD: needed with ULTRA_REPLICAS, or ULTRA_RECORD_LEASE")
        if self.durability != "sync":
            mistakes.append("ULTRA_DURABILITY: `sync` with ULTRA_REPLICAS: copies count flushes")
        if self.compaction == "key":
            mistakes.append(
                "ULTRA_COMPACTION: `none` or `time` with ULTRA_REPLICAS: by key copies "
                "would compact each other's archives"
            )
        if 0 != self.catch_up_bytes_per_s < CATCH_UP_BYTES_PER_S_MIN:
            mistakes.append(
                f"ULTRA_CATCH_UP_BYTES_PER_S: 0, or at least {CATCH_UP_BYTES_PER_S_MIN}"
            )
        if self.failover_s <= 0:
            mistakes.append("ULTRA_FAILOVER_S: must be more than 0")
        mistakes += self._mistakes_of_a_handover()
        if self.replica_tls is None and not all(_is_loopback(one) for one, _ in self.replicas):
            mistakes.append("ULTRA_REPLICA_TLS: needed unless all replicas are on the loopback")
        return mistakes

    def _mistakes_of_a_handover(self) -> list[str]:
        mistakes = []
        if self.handover_s < 0:
            mistakes.append("ULTRA_HANDOVER_S: must not be negative")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            mistakes.append("ULTRA_URL: http://… or https://…")
        return mistakes

    def _mistakes_of_a_shard_among_others(self) -> list[str]:
        mistakes = []
        if self.socket is not None and self.hop_key is None:
            mistakes.append("ULTRA_HOP_KEY: needed with ULTRA_SOCKET")
        if self.hop_key is not None and self.api_keys is not None:
            mistakes.append("ULTRA_API_KEYS: keys belong to the front when there is ULTRA_HOP_KEY")
        if self.map is not None and self.hop_key is None:
            mistakes.append("ULTRA_HOP_KEY: needed with ULTRA_MAP: gateways are its callers")
        if (self.map is None) is not (self.engine_uid is None):
            mistakes.append("ULTRA_ENGINE_UID: goes with ULTRA_MAP, and each needs the other")
        if self.engine_uid is not None and not self.engine_uid.strip():
            mistakes.append("ULTRA_ENGINE_UID: is empty")
        return mistakes


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not true or false")
    return text == "true"


def _one_of(kind: Any) -> Callable[[str], str]:
    names = get_args(kind)

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name.count(":") != 1:
            raise ValueError(f"{name!r} is not package.module:ATTRIBUTE")
    return names


def _addresses(text: str) -> Addresses:
    found = []
    for part in (one.strip() for one in text.split(",")):
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ValueError(f"{part!r} is not host:port")
        found.append((host.strip("[]"), int(port)))
    return tuple(found)


_PARSERS: Final[dict[Any, Callable[[str], Any]]] = {
    int: _integer, float: _number, bool: _boolean, str: str, Path: Path, Path | None: Path,
    str | None: str, tuple[str, ...]: _names, Addresses: _addresses,
    DurabilityName: _one_of(DurabilityName),
    CompactionName: _one_of(CompactionName),
    DurableAt: _one_of(DurableAt),
    LogVerify: _one_of(LogVerify),
    SnapshotMode: _one_of(SnapshotMode), SnapshotCodecName: _one_of(SnapshotCodecName),
}  # fmt: skip


def read_settings(
    kind: type[msgspec.Struct], environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The members of `kind` that ``ULTRA_*`` sets, limits among them; and every mistake."""
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    table = _table(kind)
    for name, (variable, parse) in table.items():
        text = environ.get(variable)
        if text is None:
            continue
        try:
            values[name] = parse(text)
        except ValueError as error:
            mistakes.append(f"{variable}: {error}")
    values["limits"] = _limits(environ, mistakes)
    known = {variable for variable, _ in table.values()}
    for variable in sorted(environ):
        ours = variable.startswith("ULTRA_") and not variable.startswith(OTHER_TABLES)
        if ours and variable not in known:
            mistakes.append(f"{variable}: no such setting")
    return values, mistakes


def _table(kind: type[msgspec.Struct]) -> dict[str, tuple[str, Callable[[str], Any]]]:
    hints = get_type_hints(kind)
    return {
        name: (f"ULTRA_{name.upper()}", _PARSERS[hints[name]])
        for name in kind.__struct_fields__
        if name != "limits"
    }


def behind_front(limits: Limits) -> Limits:
    """The limits of a shard behind a front: quotas are the front's, so that a command is charged
    once, and batches may be a little larger than the one that came."""
    return msgspec.structs.replace(
        limits,
        tenant_commands_per_s=0.0,
        batch_bytes_max=limits.batch_bytes_max + BATCH_MARGIN_BYTES,
    )


def limits_from_env(environ: Mapping[str, str]) -> Limits:
    """The limits alone, for processes without a shard.  Raises `ConfigErrors`."""
    mistakes: list[str] = []
    limits = _limits(environ, mistakes)
    if mistakes:
        raise ConfigErrors(mistakes)
    return limits


def _limits(environ: Mapping[str, str], mistakes: list[str]) -> Limits:
    hints = get_type_hints(Limits)
    values: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith("ULTRA_LIMIT_"):
            continue
        name = variable.removeprefix("ULTRA_LIMIT_").lower()
        if name not in hints:
            mistakes.append(f"{variable}: no such limit")
            continue
        try:
            value = _PARSERS[hints[name]](environ[variable])
            if value < 0:
                raise ValueError(f"{value} is negative")
            values[name] = value
        except ValueError as error:
            mistakes.append(f"{variable}: {error}")
    return msgspec.structs.replace(DEFAULT_LIMITS, **values)
