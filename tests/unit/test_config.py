"""Configuration: one table, all mistakes at once; and what the process makes of it."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.chosen import (
    compaction_policy,
    flush_rule,
    shard_options,
    snapshot_codec,
    snapshot_policy,
)
from ultraengine.config import BATCH_MARGIN_BYTES, Config, ConfigErrors, behind_front
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.extensions import NONE, Extensions
from ultraengine.gateway.tracing import OpenTelemetry
from ultraengine.log.damage import LogDamaged, LogInUse, LogRefused
from ultraengine.log.retention import KeyCompaction, NoCompaction, TimeRetention
from ultraengine.main import Process
from ultraengine.model.ids import Instant
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.ports import DiskFull
from ultraengine.replication.effects import Deposed, Diverged
from ultraengine.shard.recovery import OtherHandlers
from ultraengine.snapshot.codec import BINARY, JSON, BinaryCodec
from ultraengine.snapshot.schedule import EveryCommands, Progress
from ultraengine.starting.ends import ExitCode, code_of_reason, exit_code_of, reason_of
from ultraengine.starting.loading import load_domains, load_extensions, telemetry


class Numbered(BinaryCodec):
    """A user's own, by its number."""

    number = 64


MINE = Extensions(snapshot_policy=EveryCommands(5), compaction=NoCompaction())


def test_nothing_set_is_the_default() -> None:
    assert Config.from_env({"HOME": "/"}) == Config()


def test_settings_and_limits_are_read_by_name() -> None:
    config = Config.from_env(
        {
            "ULTRA_DATA": "/somewhere",
            "ULTRA_SHARD": "3",
            "ULTRA_COMPRESS": "true",
            "ULTRA_DURABILITY": "group",
            "ULTRA_DOMAINS": "a.b:C, d:E",
            "ULTRA_API_KEYS": "keys.toml",
            "ULTRA_SNAPSHOT_MODE": "cooperative",
            "ULTRA_LIMIT_GROUP_COMMANDS_MAX": "7",
            "ULTRA_LIMIT_TENANT_COMMANDS_PER_S": "2.5",
        }
    )
    assert config.data == Path("/somewhere")
    assert (config.shard, config.compress, config.durability) == (3, True, "group")
    assert config.domains == ("a.b:C", "d:E")
    assert config.api_keys == Path("keys.toml")
    assert config.snapshot_mode == "cooperative"
    assert config.limits.group_commands_max == 7
    assert config.limits.tenant_commands_per_s == 2.5
    assert config.limits.segment_bytes == DEFAULT_LIMITS.segment_bytes


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigErrors) as caught:
        Config.from_env(
            {
                "ULTRA_PORT": "eighty",
                "ULTRA_GROUP_WAIT_S": "soon",
                "ULTRA_COMPRESS": "yes",
                "ULTRA_DURABILITY": "maybe",
                "ULTRA_DOMAINS": "no-colon",
                "ULTRA_NO_SUCH": "1",
                "ULTRA_LIMIT_NO_SUCH": "1",
                "ULTRA_LIMIT_SEGMENT_BYTES": "-1",
                "ULTRA_LIMIT_DRAIN_S": "x",
            }
        )
    named = sorted(mistake.split(":")[0] for mistake in caught.value.mistakes)
    assert named == [
        "ULTRA_COMPRESS",
        "ULTRA_DOMAINS",
        "ULTRA_DURABILITY",
        "ULTRA_GROUP_WAIT_S",
        "ULTRA_LIMIT_DRAIN_S",
        "ULTRA_LIMIT_NO_SUCH",
        "ULTRA_LIMIT_SEGMENT_BYTES",
        "ULTRA_NO_SUCH",
        "ULTRA_PORT",
    ]
    assert str(caught.value).count("\n") == 8


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"ULTRA_SHARD": "4096"}, "ULTRA_SHARD"),
        ({"ULTRA_DURABILITY": "group", "ULTRA_GROUP_WAIT_S": "0.1"}, "ULTRA_GROUP_WAIT_S"),
        ({"ULTRA_GROUP_WAIT_S": "0"}, "ULTRA_GROUP_WAIT_S"),
        ({"ULTRA_LIMIT_SEGMENT_BYTES": "65536"}, "ULTRA_LIMIT_SEGMENT_BYTES"),
        ({"ULTRA_COMPACTION": "time"}, "ULTRA_ARCHIVE"),
        ({"ULTRA_EXTENSIONS": "nowhere"}, "ULTRA_EXTENSIONS"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, str], about: str
) -> None:
    with pytest.raises(ConfigErrors, match=about):
        Config.from_env(settings)


def test_domains_are_imported_and_every_wrong_name_is_told() -> None:
    (ledger,) = load_domains(["ultraengine.domains.ledger:DOMAIN"])
    assert ledger.name == "ledger"
    with pytest.raises(ConfigErrors) as caught:
        load_domains(["no.such.module:X", "ultraengine.domains.ledger:NOTHING"])
    assert len(caught.value.mistakes) == 2


def test_extensions_are_imported_and_checked() -> None:
    assert load_extensions(None) is NONE
    with pytest.raises(ConfigErrors, match="it is not an Extensions"):
        load_extensions("ultraengine.config:Config")
    with pytest.raises(ConfigErrors, match="no_such"):
        load_extensions("no_such:MINE")
    found = load_extensions("ultraengine.extensions:NONE")
    assert found == Extensions()


@pytest.mark.parametrize(
    ("name", "wait_s", "before_flush"),
    [("sync", 0.0, False), ("group", 0.002, False), ("async", 0.002, True)],
)
def test_a_durability_policy_is_made_by_name(name: str, wait_s: float, before_flush: bool) -> None:
    rule = flush_rule(Config.from_env({"ULTRA_DURABILITY": name}), NONE)
    assert (rule.name, rule.wait_s, rule.reply_before_flush) == (name, wait_s, before_flush)
    assert rule.group_bytes_max == DEFAULT_LIMITS.group_bytes_max


@pytest.mark.parametrize("name", ["none", "time", "key"])
def test_a_compaction_policy_is_made_by_name(name: str, tmp_path: Path) -> None:
    config = Config.from_env({"ULTRA_COMPACTION": name, "ULTRA_ARCHIVE": str(tmp_path)})
    policy = compaction_policy(config, NONE)
    assert policy is not None
    assert policy.name == name
    assert compaction_policy(config, MINE) is MINE.compaction
    assert compaction_policy(Config(), NONE) is None
    assert compaction_policy(Config(), MINE) is None


def test_a_users_own_compaction_without_an_archive_is_a_mistake_and_not_passed_over() -> None:
    own = Extensions(compaction=TimeRetention())
    with pytest.raises(ConfigErrors, match="ULTRA_ARCHIVE"):
        compaction_policy(Config(), own)


def test_copies_archive_whole_segments_and_nothing_by_key() -> None:
    told = REPLICATED | {"ULTRA_COMPACTION": "time", "ULTRA_ARCHIVE": "/a"}
    policy = compaction_policy(Config.from_env(told), NONE)
    assert policy is not None
    assert policy.name == "time"
    with pytest.raises(ConfigErrors, match="no compaction by key"):
        compaction_policy(Config.from_env(told), Extensions(compaction=KeyCompaction()))


def test_a_snapshot_is_due_by_each_configured_reason() -> None:
    policy = snapshot_policy(Config(snapshot_commands=10), NONE)
    assert policy.due(Progress(commands=10, elapsed_s=1.0)) is not None
    assert policy.due(Progress(commands=9, elapsed_s=1.0)) is None
    assert policy.due(Progress(commands=9, elapsed_s=3600.0)) is not None
    never = Config(snapshot_commands=0, snapshot_interval_s=0.0, snapshot_replay_s=0.0)
    assert snapshot_policy(never, NONE).due(Progress(commands=10**9, elapsed_s=1e9)) is None
    own = snapshot_policy(never, MINE)
    assert own.due(Progress(commands=5, elapsed_s=1.0)) is not None
    assert own.due(Progress(commands=4, elapsed_s=1.0)) is None


def test_a_users_own_snapshot_policy_is_not_asked_again_at_once_after_a_failure() -> None:
    own = snapshot_policy(Config(), MINE)
    assert own.due(Progress(commands=5, elapsed_s=99.0, failures=1, since_failure_s=1.0)) is None
    assert (
        own.due(Progress(commands=5, elapsed_s=99.0, failures=1, since_failure_s=11.0)) is not None
    )


def test_a_master_key_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"ULTRA_SECRET_DISK_2026": f"hex:{'07' * 32}"}
    for name, text in secret.items():
        monkeypatch.setenv(name, text)
    settings = {"ULTRA_DATA": str(tmp_path), "ULTRA_MASTER_KEY": "disk-2026"}
    process = Process(Config.from_env({**settings, **secret}), on_fatal=lambda _: None)
    assert process.config.master_key == "disk-2026"
    assert process.world.secrets.get("disk-2026") == bytes([7]) * 32
    process.background.shutdown()


@pytest.mark.parametrize("variable", ["ULTRA_MASTER_KEY", "ULTRA_CHAIN_KEY"])
@pytest.mark.parametrize("prefix", ["hex:", "base64:"])
def test_a_key_in_the_place_of_its_name_is_refused_and_not_shown(
    variable: str, prefix: str
) -> None:
    with pytest.raises(ConfigErrors, match=variable) as caught:
        Config.from_env({variable: f"{prefix}{'07' * 32}"}).check()
    assert "0707" not in str(caught.value)


def test_snapshots_are_binary_unless_json_or_a_codec_of_ones_own_is_wanted() -> None:
    assert snapshot_codec(Config(), NONE) == BINARY
    config = Config.from_env({"ULTRA_SNAPSHOT_CODEC": "json"})
    assert snapshot_codec(config, NONE) == JSON
    own = Extensions(snapshot_codecs=(Numbered(),))
    assert snapshot_codec(config, own) == 64


def test_the_page_for_operators_names_every_setting_and_limit_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(ULTRA_[A-Z_]+)` \| (\S+) \| \S.* \|$", page, re.MULTILINE))
    names = {f"ULTRA_{name.upper()}" for name in Config.__struct_fields__ if name != "limits"}
    limits = {f"ULTRA_LIMIT_{name.upper()}" for name in Limits.__struct_fields__}
    assert set(rows) == names | limits, "write it anew: make docs"
    for name in Limits.__struct_fields__:
        assert rows[f"ULTRA_LIMIT_{name.upper()}"] == f"`{getattr(DEFAULT_LIMITS, name)}`", name


def test_tracing_is_off_unless_it_is_wanted() -> None:
    assert telemetry(Config()) is None
    recorder = telemetry(Config.from_env({"ULTRA_TRACING": "true"}))
    assert isinstance(recorder, OpenTelemetry)
    # Without a provider of the user's own the tracer records nothing and fails nothing.
    recorder.span("x", start=Instant(1), end=Instant(2), traceparent=None, attributes={})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigErrors(["x"]), ExitCode.BAD_CONFIG),
        (LogInUse("LOCK"), ExitCode.IN_USE),
        (LogRefused("x"), ExitCode.REFUSED),
        (OtherHandlers("x"), ExitCode.OTHER_HANDLERS),
        (EvolveFailed("x"), ExitCode.HALTED),
        (DiskFull(28, "full"), ExitCode.DISK_FULL),
        (OSError(5, "io"), ExitCode.LOG_FAILED),
        (RuntimeError("x"), ExitCode.FAILED),
    ],
)
def test_every_cause_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_damage_has_an_exit_code_of_its_own() -> None:
    damage = LogDamaged("x", file="f", byte_position=0, sequence=0, offset=0, advice="a")
    assert exit_code_of(damage) is ExitCode.LOG_DAMAGED


def test_a_socket_needs_a_hop_key_and_a_hop_key_leaves_keys_to_the_front(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="ULTRA_HOP_KEY: needed with ULTRA_SOCKET"):
        Config(socket=tmp_path / "s").check()
    with pytest.raises(ConfigErrors, match="ULTRA_API_KEYS: keys belong to the front"):
        Config(hop_key=tmp_path / "k", api_keys=tmp_path / "keys").check()
    Config(socket=tmp_path / "s", hop_key=tmp_path / "k").check()


def test_a_map_goes_with_the_name_of_an_engine_and_a_hop_key(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "map": tmp_path / "map.json",
        "engine_uid": "shop",
        "hop_key": tmp_path / "key",
    }
    Config(**told).check()
    for missing, said in (
        ("map", "ULTRA_ENGINE_UID: goes with ULTRA_MAP"),
        ("engine_uid", "ULTRA_ENGINE_UID: goes with ULTRA_MAP"),
        ("hop_key", "ULTRA_HOP_KEY: needed with ULTRA_MAP"),
    ):
        with pytest.raises(ConfigErrors, match=said):
            Config(**{name: one for name, one in told.items() if name != missing}).check()
    with pytest.raises(ConfigErrors, match="ULTRA_ENGINE_UID: is empty"):
        Config(**told | {"engine_uid": " "}).check()


def test_a_shard_behind_a_front_charges_nobody_and_takes_batches_with_ids_added() -> None:
    limits = behind_front(Limits(tenant_commands_per_s=5.0, batch_bytes_max=1_000_000))
    assert limits.tenant_commands_per_s == 0.0
    assert limits.batch_bytes_max == 1_000_000 + BATCH_MARGIN_BYTES


REPLICATED = {
    "ULTRA_REPLICAS": "127.0.0.1:9001, localhost:9002,[::1]:9003",
    "ULTRA_REPLICA": "1",
    "ULTRA_CLUSTER": "shop",
    "ULTRA_RECORD": "/record",
}


def test_replicas_are_addresses_in_the_order_of_their_numbers() -> None:
    config = Config.from_env(REPLICATED)
    assert config.replicas == (("127.0.0.1", 9001), ("localhost", 9002), ("::1", 9003))
    assert (config.replica, config.cluster, config.record) == (1, "shop", Path("/record"))


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "a:1,,b:2"])
def test_an_address_of_a_replica_has_a_host_and_a_port(text: str) -> None:
    with pytest.raises(ConfigErrors, match="is not host:port"):
        Config.from_env({**REPLICATED, "ULTRA_REPLICAS": text})


def test_snapshots_are_durable_in_an_object_store_only_where_there_is_one() -> None:
    with pytest.raises(ConfigErrors, match="ULTRA_BACKUP"):
        Config.from_env({"ULTRA_SNAPSHOT_DURABLE_AT": "object"})
    named = {"ULTRA_SNAPSHOT_DURABLE_AT": "object", "ULTRA_BACKUP": "/b"}
    assert Config.from_env(named).snapshot_durable_at == "object"


def test_outcomes_are_not_eager_where_replies_wait_for_no_flush() -> None:
    eager = {"ULTRA_EAGER_OUTCOMES": "true"}
    with pytest.raises(ConfigErrors, match="ULTRA_EAGER_OUTCOMES"):
        flush_rule(Config.from_env(eager | {"ULTRA_DURABILITY": "async"}), Extensions())
    assert shard_options(Config.from_env(eager), Extensions()).eager_outcomes
    assert not shard_options(Config.from_env({}), Extensions()).eager_outcomes


def test_handlers_whose_commands_are_decided_again_have_to_be_named_as_a_start_names_them() -> None:
    for wrong in ("", "true", "11C7EE4A41F98336", "11c7ee4a41f9833"):
        with pytest.raises(ConfigErrors, match="ULTRA_DECIDE_AGAIN"):
            Config.from_env({"ULTRA_DECIDE_AGAIN": wrong})
    named = Config.from_env({"ULTRA_DECIDE_AGAIN": "11c7ee4a41f98336"})
    assert shard_options(named, Extensions()).decide_again == "11c7ee4a41f98336"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ULTRA_REPLICAS": "127.0.0.1:1,127.0.0.1:1"}, "ULTRA_REPLICAS"),
        ({"ULTRA_REPLICA": "3"}, "ULTRA_REPLICA"),
        ({"ULTRA_MIN_ISR": "4"}, "ULTRA_MIN_ISR"),
        ({"ULTRA_CLUSTER": " "}, "ULTRA_CLUSTER"),
        ({"ULTRA_RECORD": None}, "ULTRA_RECORD"),
        ({"ULTRA_DURABILITY": "group"}, "ULTRA_DURABILITY"),
        ({"ULTRA_DURABILITY": "async"}, "ULTRA_DURABILITY"),
        ({"ULTRA_COMPACTION": "key", "ULTRA_ARCHIVE": "/a"}, "ULTRA_COMPACTION"),
        (
            {"ULTRA_SNAPSHOT_DURABLE_AT": "object", "ULTRA_BACKUP": "/b"},
            "ULTRA_SNAPSHOT_DURABLE_AT",
        ),
        ({"ULTRA_FAILOVER_S": "0"}, "ULTRA_FAILOVER_S"),
        ({"ULTRA_CATCH_UP_BYTES_PER_S": "1000"}, "ULTRA_CATCH_UP_BYTES_PER_S"),
        ({"ULTRA_REPLICAS": "10.0.0.1:1,10.0.0.2:1"}, "ULTRA_REPLICA_TLS"),
    ],
)
def test_what_copies_cannot_keep_is_refused(changes: dict[str, str | None], named: str) -> None:
    told = {name: text for name, text in (REPLICATED | changes).items() if text is not None}
    with pytest.raises(ConfigErrors) as caught:
        Config.from_env(told)
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [named]


def test_replicas_elsewhere_need_certificates_and_nothing_else() -> None:
    told = {"ULTRA_REPLICAS": "10.0.0.1:1,10.0.0.2:1", "ULTRA_REPLICA_TLS": "/tls"}
    assert Config.from_env(REPLICATED | told).replica_tls == Path("/tls")


def test_a_process_that_must_end_says_why_by_its_code() -> None:
    assert code_of_reason(reason_of(Deposed("epoch 4 is over"))) == 78
    assert code_of_reason(reason_of(Diverged("here"))) == 79
    assert code_of_reason(reason_of(OSError("disk"))) == 70
    assert code_of_reason("SIGTERM") is None


@pytest.mark.parametrize("name", ["ULTRA_ARCHIVE", "ULTRA_BACKUP"])
def test_a_store_is_a_directory_or_s3(name: str) -> None:
    for location in ("/srv/store", "file:///srv/store", "s3://b/p?endpoint=http://127.0.0.1:9000"):
        assert location in msgspec.structs.astuple(Config.from_env({name: location}))
    for location in ("gs://bucket/x", "http://s3/x", " "):
        with pytest.raises(ConfigErrors, match=f"{name}: neither s3://"):
            Config.from_env({name: location})


def test_the_interval_of_backups_is_not_negative() -> None:
    with pytest.raises(ConfigErrors, match="ULTRA_BACKUP_INTERVAL_S: is negative"):
        Config.from_env({"ULTRA_BACKUP_INTERVAL_S": "-1"})
