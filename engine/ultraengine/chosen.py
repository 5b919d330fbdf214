"""What a configuration chooses among policies: its own, or those of the user's extensions."""

from ultraengine.config import Config, ConfigErrors
from ultraengine.execution.policies import AsyncDurability, GroupDurability, SyncDurability
from ultraengine.extensions import Extensions
from ultraengine.log.archive import KEY_POLICY
from ultraengine.log.retention import KeyCompaction, NoCompaction, TimeRetention
from ultraengine.model.ids import ShardId
from ultraengine.model.policy import CompactionPolicy, FlushRule
from ultraengine.shard.opening import ShardOptions
from ultraengine.snapshot.codec import BINARY, JSON
from ultraengine.snapshot.schedule import (
    AnyOf,
    EveryCommands,
    EveryInterval,
    OnDemand,
    ReplayBound,
    SnapshotPolicy,
)


def flush_rule(config: Config, extensions: Extensions) -> FlushRule:
    """The durability policy's rule (requirement 001 §2.1: sync, group-commit, async).  Raises
    `ConfigErrors`."""
    policy = extensions.durability
    if policy is None:
        size = config.limits.group_bytes_max
        if config.durability == "sync":
            policy = SyncDurability(group_bytes_max=size)
        elif config.durability == "group":
            policy = GroupDurability(wait_s=config.group_wait_s, group_bytes_max=size)
        else:
            policy = AsyncDurability(wait_s=config.group_wait_s, group_bytes_max=size)
    rule = policy.rule()
    if rule.reply_before_flush and config.eager_outcomes:
        raise ConfigErrors(
            ["ULTRA_EAGER_OUTCOMES: not with replies that wait for no flush (async)"]
        )
    return rule


def compaction_policy(config: Config, extensions: Extensions) -> CompactionPolicy | None:
    """What goes to the archive; None without an archive.  Raises `ConfigErrors` for a policy of the
    user's own that has none: what it is there to keep would be removed, and for one by key with
    copies."""
    if config.archive is None:
        if extensions.compaction is not None and extensions.compaction.name != "none":
            raise ConfigErrors(["ULTRA_ARCHIVE: needed by the compaction of ULTRA_EXTENSIONS"])
        return None
    if extensions.compaction is not None:
        if config.replicas and extensions.compaction.name == KEY_POLICY:
            raise ConfigErrors(["ULTRA_EXTENSIONS: no compaction by key with ULTRA_REPLICAS"])
        return extensions.compaction
    if config.compaction == "time":
        return TimeRetention(config.archive_keep_s or None)
    return KeyCompaction() if config.compaction == "key" else NoCompaction()


def snapshot_policy(config: Config, extensions: Extensions) -> SnapshotPolicy:
    """By count, by replay time and by time, as configured; on demand always."""
    if extensions.snapshot_policy is not None:
        # Patience after failures is not the user's to think of: a full disk would be tried
        # every second.
        return AnyOf((extensions.snapshot_policy,))
    policies: list[SnapshotPolicy] = [OnDemand()]
    if config.snapshot_commands:
        policies.append(EveryCommands(config.snapshot_commands))
    if config.snapshot_replay_s:
        policies.append(ReplayBound(replay_s_max=config.snapshot_replay_s))
    if config.snapshot_interval_s:
        policies.append(EveryInterval(config.snapshot_interval_s))
    return AnyOf(tuple(policies))


def snapshot_codec(config: Config, extensions: Extensions) -> int:
    """Number of the codec that snapshots are written with."""
    if extensions.snapshot_codecs:
        return extensions.snapshot_codecs[0].number
    return JSON if config.snapshot_codec == "json" else BINARY


def shard_options(config: Config, own: Extensions) -> ShardOptions:
    """How a shard is opened, or follows."""
    return ShardOptions(
        shard=ShardId(config.shard),
        rule=flush_rule(config, own),
        limits=config.limits,
        compress=config.compress,
        verify_all=config.log_verify == "all",
        master_key=config.master_key,
        chain_key=config.chain_key,
        decide_again=config.decide_again,
        eager_outcomes=config.eager_outcomes,
        scheduling=own.scheduling,
        serializers=own.serializers,
        compaction=compaction_policy(config, own),
    )
