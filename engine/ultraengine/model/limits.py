"""Every limit by name, with its default, unit and what happens there.

`GET /v1/limits` serves the values in force; `Config` reads overrides from this table.
"""

import msgspec

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one shard and its gateway.  Sizes in bytes, times in seconds."""

    commands_per_batch_max: int = 1_000
    """More: 413 TOO_LARGE, nothing of the batch is taken."""
    items_per_command_max: int = 1_000
    """More: 413 TOO_LARGE."""
    command_bytes_max: int = MIB
    """Larger request for one command: 413 TOO_LARGE."""
    batch_bytes_max: int = 8 * MIB
    """Larger batch body: 413 TOO_LARGE."""
    mailbox_commands_max: int = 16_384
    """Waiting commands per shard; full: 429 OVERLOADED."""
    mailbox_bytes_max: int = 64 * MIB
    """Waiting command bytes per shard; full: 429 OVERLOADED."""
    group_commands_max: int = 4_096
    """Commands per COMMANDS frame; the rest waits for the next group."""
    group_bytes_max: int = 2 * MIB
    """Payload per COMMANDS frame; the rest waits for the next group."""
    frame_bytes_max: int = 16 * MIB
    """Payload before compression; an OUTCOMES payload beyond it is split by the writer."""
    segment_bytes: int = 64 * MIB
    """Length of a segment; at least twice ``frame_bytes_max``."""
    segments_prepared: int = 1
    """Zero-filled segments kept ahead."""
    retention_bytes_max: int = 20 * GIB
    """Log kept for slow consumers; beyond it the slowest slot is dropped with an alarm."""
    reserve_bytes: int = 64 * MIB
    """Space kept free for a clean stop; less left: read-only, 503 READ_ONLY."""
    dedup_entries_max: int = 10_000_000
    """Ids remembered in memory; older ones go to sorted runs on disk."""
    dedup_bytes_max: int = 4 * GIB
    """Sorted runs on disk; beyond it the dedupe floor rises, with an alarm."""
    dedup_window_s: int = 7 * 24 * 3600
    """Logged time after which an id is forgotten."""
    replay_checkpoint_s: float = 30.0
    """A start that replays for so long takes a snapshot and goes on, so that one that is
    interrupted need not begin again; at most a quarter of its time goes there.  0 = never."""
    timers_per_tick_max: int = 1_000
    """Expiries in one system.tick; the rest enters the next one."""
    min_offset_wait_s: float = 5.0
    """Longest wait for ``min_offset``; then 504 WAIT_TIMEOUT."""
    confirm_wait_s: float = 2.0
    """Longest wait of a read until its leader has proved that it leads; then 503 NOT_LEADER."""
    reply_wait_s: float = 30.0
    """Longest wait for a reply; then 504 OUTCOME_UNKNOWN."""
    clock_leap_max_s: float = 3_600.0
    """A wall clock that leaps further ahead than this is not believed until a restart (alarm
    ``clock.leaped``): logged time cannot be taken back."""
    page_items_max: int = 1_000
    """Items per page of a list; more asked: 400 MALFORMED."""
    filter_values_max: int = 100
    """Values of one ``in`` filter of a read over SQL; more: 400 MALFORMED."""
    sql_statement_s: float = 5.0
    """Longest statement of a read over SQL; then it is ended, 504 READ_TIMEOUT."""
    sql_reads_max: int = 256
    """Reads over SQL being answered, those that wait for ``min_offset`` included; more: 429
    OVERLOADED."""
    sql_connections: int = 8
    """Connections that an `ultra query` holds to its database."""
    stream_credit: int = 4_096
    """Unanswered commands per stream; overdraft closes it with 4008."""
    stream_buffer_bytes_max: int = 4 * MIB
    """Unanswered and unsent bytes per stream; beyond it nothing more is read from the stream,
    and a client that does not read its replies for 20 s is closed with 4008."""
    streams_max: int = 1_024
    """Open streams; more: 429 OVERLOADED."""
    feed_page_bytes_max: int = 4 * MIB
    """Payload of one page of the feed; a page has at least one group, however large."""
    feed_page_groups_max: int = 1_024
    """Groups in one page of the feed."""
    feeds_max: int = 64
    """Open feeds; more: 429 OVERLOADED."""
    feed_consumers_max: int = 64
    """Consumer slots of a shard; another one: 429 OVERLOADED."""
    requests_in_flight_max: int = 4_096
    """HTTP requests being answered; more: 429 OVERLOADED."""
    drain_s: float = 10.0
    """Longest drain at a stop; then the process ends with what is durable."""
    tenant_commands_per_s: float = 0.0
    """Sustained rate per tenant, 0 = no quota; beyond it 429 QUOTA."""
    tenant_burst: int = 10_000
    """Commands a tenant may send at once under a quota."""
    tenant_reads_per_s: float = 0.0
    """Sustained rate of reads over SQL per tenant and `ultra query`, 0 = no quota; beyond it 429
    QUOTA."""
    tenant_reads_burst: int = 1_000
    """Reads over SQL a tenant may ask for at once under a quota."""


class ProjectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one projection worker.  `ultra project --limit NAME=VALUE` sets them."""

    batch_rows_max: int = 20_000
    """Rows of one transaction; the rest waits for the next one.  One group may be more."""
    batch_bytes_max: int = 8 * MIB
    """Payload of the groups of one transaction, likewise."""
    ahead_bytes_max: int = 16 * MIB
    """Payload read ahead of a target by shard and reading; then nothing more is read, and the
    log keeps it."""
    slices_per_refresh_max: int = 64
    """Slices of aggregates computed anew at once; the rest waits for the next turn."""
    poll_s: float = 1.0
    """Between two looks at requests and sets: how soon a pause is obeyed."""
    confirm_s: float = 1.0
    """Between two confirmations of a slot."""
    refresh_s: float = 5.0
    """Aggregates are at most so old while rows arrive; they are computed at once when none do."""
    keep_s: float = 24 * 3600.0
    """Between two rounds of making partitions to come and dropping old ones."""
    breaker_wait_s_max: float = 30.0
    """Longest wait between two attempts to reach a database that is away."""
    feed_wait_s_max: float = 10.0
    """Longest wait between two attempts to reach an engine that is away."""
    grace_s: float = 600.0
    """A set that was replaced is dropped after so long."""
    lag_warn_s: float = 30.0
    """A set that is so far behind is a warning in the log and in the metrics."""
    lag_alarm_s: float = 300.0
    """A set that is so far behind is an error."""
    stop_s: float = 10.0
    """Longest wait for the batch under way at a stop; then its transaction is undone."""


class AdviceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of `ultra advise`.  ``--limit NAME=VALUE`` sets them."""

    calls_min: int = 50
    """Shapes that the database answered less often are left out."""
    share_min: float = 0.01
    """Shapes with a smaller share of all recorded time are left out."""
    slow_s_min: float = 0.002
    """Shapes of which 95 % took less are fast enough."""
    table_rows_min: int = 1_000
    """Smaller tables need no index."""
    index_bytes_max: int = 2_600
    """Longest row of an index, when all its texts are as long as they may be.  PostgreSQL refuses
    rows beyond 2,704, and a refused row would park the projection."""
    candidates_max: int = 12
    """Indexes that are tried, those for the dearest shapes first."""
    computed_slow_s_min: float = 0.01
    """Computed reads of which 95 % took less need no table of their own."""
    computed_rows_min: int = 100
    """Rows of the table for each row of the answer, from which on one of its own is proposed."""
    copy_rows_max: int = 200_000
    """Rows of the copy that a trial is made on; of larger tables, a sample."""
    examples: int = 6
    """Sets of values from the data with which a shape is asked."""
    rounds: int = 5
    """How often each is asked, for the median, and each write repeated, for the fastest."""
    write_rows: int = 2_000
    """Rows inserted to measure what an index costs a writer."""
    statement_s: float = 30.0
    """Longest single statement of a trial; then the trial ends without a verdict."""
    gain_min: float = 2.0
    """An index is kept when its shapes cost so many times less work with it."""
    time_gain_min: float = 1.0
    """And its shapes must take this many times less time, or more: 0 = time does not matter."""
    write_cost_max: float = 0.5
    """An index is too dear when it makes inserts longer by more than this share."""
    indexes_per_table_max: int = 3
    """Added indexes of one table; more are not proposed for it."""
    lock_s: float = 5.0
    """Longest wait for a lock while an index is made or removed; then try again."""
    build_s: float = 3600.0
    """Longest time that making one index may take."""


DEFAULT_LIMITS = Limits()
DEFAULT_ADVICE_LIMITS = AdviceLimits()
DEFAULT_PROJECTION_LIMITS = ProjectionLimits()
