"""Builders, plan, conditions and election as functions of values."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from ultraengine.config import Config
from ultraengine.front.settings import GatewaySettings
from ultraengine.router.shard_map import ShardMap
from ultraengine_operator import names
from ultraengine_operator.api.decode import engine_of
from ultraengine_operator.api.quantities import quantity, seconds
from ultraengine_operator.budget import Fleet, Standing, refusal
from ultraengine_operator.conditions import Finding, conditions
from ultraengine_operator.election import may_take, released, taken, watch
from ultraengine_operator.observed import Observed, observed_of
from ultraengine_operator.plan import Settings, plan, view_of
from ultraengine_operator.reasons import RUNBOOKS, Problem, Reason
from ultraengine_operator.specs.render import render

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"


def content(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
        "spec": {"image": "registry.example/ultraengine:1.2", "replicasPerShard": 1, **spec},
    }


FULL: dict[str, Any] = {
    "shards": 2,
    "durability": "Group",
    "storage": {"size": "20Gi", "storageClassName": "fast"},
    "snapshots": {"commands": 5, "interval": "1h30m", "replayTime": "10s", "kept": 2,
                  "mode": "Inline"},
    "resources": {"requests": {"cpu": "1"}},
    "gateway": {"replicas": 3, "resources": {"limits": {"cpu": "2"}},
                "autoscaling": {"maxReplicas": 9}, "apiKeysSecretName": "keys"},
    "settings": [{"name": "ULTRA_COMPRESS", "value": "true"}],
    "scheduling": {"nodeSelector": {"disk": "nvme"}, "tolerations": [{"operator": "Exists"}],
                   "topologySpreadConstraints": [], "priorityClassName": "high"},
}  # fmt: skip


READS: dict[str, Any] = {
    "domains": ["ultraengine.domains.ledger:DOMAIN", "shop.orders:DOMAIN"],
    "gateway": {"apiKeysSecretName": "keys"},
    "query": {"replicas": 2, "targetSecretName": "reader", "resources": {"limits": {"cpu": "1"}}},
    "projections": [{"name": "books", "targetSecretName": "writer"},
                    {"name": "audit", "targetSecretName": "archive"}],
    "settings": [{"name": "ULTRA_LIMIT_SQL_READS_MAX", "value": "64"}],
}  # fmt: skip


BACKED_UP: dict[str, Any] = {
    "backup": {"location": "s3://bucket/shop?endpoint=http://10.0.0.9:9000", "interval": "15m",
               "credentialsSecretName": "store"},
}  # fmt: skip


LET_IN: dict[str, Any] = {
    "gateway": {"ingress": {
        "host": "shop.example.com", "className": "nginx", "tlsSecretName": "shop-tls",
        "rateLimit": {"controller": "Nginx", "requestsPerSecond": 50, "connections": 100},
        "annotations": {"cert-manager.io/cluster-issuer": "public"},
    }},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spec"),
    [("least", {}), ("full", FULL), ("reads", READS), ("backups", BACKED_UP), ("ingress", LET_IN)],
)
def test_children_are_byte_for_byte_those_on_file(name: str, spec: dict[str, Any]) -> None:
    view, problems = view_of(engine_of(content(**spec)), Observed(), Settings())
    rendered = msgspec.json.format(msgspec.json.encode(render(view)), indent=1)
    assert problems == ()
    assert rendered == (GOLDEN / f"{name}.json").read_bytes()


def test_an_ingress_of_a_host_alone_asks_for_no_class_no_tls_and_no_limit() -> None:
    spec = {"gateway": {"ingress": {"host": "shop.example.com"}}}
    view, _ = view_of(engine_of(content(**spec)), Observed(), Settings())
    (made,) = (one for one in render(view) if one["kind"] == "Ingress")
    backend = {"service": {"name": "shop-gateway", "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    assert made["spec"] == {"rules": [{"host": "shop.example.com", "http": {"paths": [path]}}]}
    assert made["metadata"]["annotations"] == {names.RENDER_VERSION: "1"}


def test_a_limit_of_connections_is_not_told_where_none_is_wished() -> None:
    limit = {"controller": "Nginx", "requestsPerSecond": 5}
    spec = {"gateway": {"ingress": {"host": "shop.example.com", "rateLimit": limit}}}
    view, _ = view_of(engine_of(content(**spec)), Observed(), Settings())
    (made,) = (one for one in render(view) if one["kind"] == "Ingress")
    limits = {name: value for name, value in made["metadata"]["annotations"].items()
              if name.startswith("nginx.")}  # fmt: skip
    assert limits == {"nginx.ingress.kubernetes.io/limit-rps": "5"}


def test_limits_are_those_of_the_gateway_too_and_other_settings_are_the_shards_alone() -> None:
    # Quotas are counted and commands are measured by the gateway: shards behind it count none.
    quota = {"name": "ULTRA_LIMIT_TENANT_COMMANDS_PER_S", "value": "50"}
    settings = [quota, {"name": "ULTRA_COMPRESS", "value": "true"}]
    view, _ = view_of(engine_of(content(settings=settings)), Observed(), Settings())
    told = {
        one["kind"]: one["spec"]["template"]["spec"]["containers"][0]["env"]
        for one in render(view)
        if one["kind"] in ("StatefulSet", "Deployment")
    }
    assert [one for one in settings if one in told["StatefulSet"]] == settings
    assert [one for one in settings if one in told["Deployment"]] == [quota]
    environ = {one["name"]: one["value"] for one in told["Deployment"]}
    assert GatewaySettings.from_env(environ).limits.tenant_commands_per_s == 50.0


def environments(**spec: Any) -> dict[str, dict[str, Any]]:
    """The variables of each pod's container, by the component."""
    view, _ = view_of(engine_of(content(shards=1, **spec)), Observed(), Settings())
    return {
        one["metadata"]["labels"][names.COMPONENT]: {
            variable["name"]: variable
            for variable in one["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        for one in render(view)
        if one["kind"] in ("StatefulSet", "Deployment")
    }


def test_a_shard_takes_its_place_and_its_keys_for_backups_from_the_spec_and_a_gateway_none() -> (
    None
):
    told = environments(**BACKED_UP)
    plain = {name: one["value"] for name, one in told["engine"].items() if "value" in one}
    config = Config.from_env(plain | {"ULTRA_ENGINE_UID": "shop"})
    assert config.backup == BACKED_UP["backup"]["location"]
    assert config.backup_interval_s == 900.0
    keys = {
        name: one["valueFrom"]["secretKeyRef"]["key"]
        for name, one in told["engine"].items()
        if one.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == "store"
    }
    assert keys == {name: name for name in names.STORE_KEYS}
    assert not {one for one in told["gateway"] if "BACKUP" in one or "AWS" in one}


def test_without_a_secret_for_backups_the_pods_account_is_what_lets_in() -> None:
    told = environments(backup={"location": "s3://bucket/shop"})["engine"]
    assert told["ULTRA_BACKUP_INTERVAL_S"]["value"] == "3600"
    assert not {one for one in told if "AWS" in one}


def test_the_order_in_which_objects_are_seen_does_not_matter() -> None:
    engine = engine_of(content(shards=3))
    view, _ = view_of(engine, Observed(), Settings())
    world = list(render(view))
    for one in world:
        one["metadata"].update(resourceVersion="1", generation=1, uid=one["metadata"]["name"])
    plans = []
    for seed in range(30):
        random.Random(seed).shuffle(world)
        objects = {seen.ref: one for one in world for seen in observed_of({_ref(one): one}).objects}
        made = plan(engine, observed_of(objects), settled={}, fleet=Fleet({}),
                    settings=Settings(), now_s=0.0)  # fmt: skip
        plans.append(made)
    assert all(one == plans[0] for one in plans)
    assert len(plans[0].actions) > 15


def _ref(one: dict[str, Any]) -> Any:
    from ultraengine_operator.actions import ref_of  # noqa: PLC0415

    return ref_of(one)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"shards": 0}, "spec.shards: 0"),
        ({"shards": "two"}, "$.spec.shards"),
        ({"replicasPerShard": 4}, "spec.replicasPerShard: 4"),
        ({"durability": "Async", "replicasPerShard": 2}, "Async"),
        ({"durability": "Group", "replicasPerShard": 3}, "Group"),
        ({"settings": [{"name": "ULTRA_REPLICAS", "value": "a:1"}]}, "ULTRA_REPLICAS"),
        ({"domains": []}, "spec.domains"),
        ({"storage": {"size": "1 GB"}}, "spec.storage.size"),
        ({"snapshots": {"interval": "soon"}}, "spec.snapshots.interval"),
        ({"backup": {"location": "/data/backups"}}, "spec.backup.location"),
        ({"backup": {"location": "s3://bucket/shop", "interval": "daily"}}, "spec.backup.interval"),
        ({"gateway": {"replicas": 3, "autoscaling": {"maxReplicas": 2}}}, "maxReplicas"),
        ({"settings": [{"name": "ULTRA_SHARD", "value": "1"}]}, "ULTRA_SHARD"),
        ({"settings": [{"name": "ULTRA_A", "value": "1"}] * 2}, "twice"),
    ],
)
def test_each_wrong_field_is_named(spec: dict[str, Any], part: str) -> None:
    with pytest.raises(Problem) as caught:
        engine_of(content(**spec))
    assert caught.value.reason is Reason.SPEC_INVALID
    assert part in caught.value.message


def test_wishes_that_cannot_be_met_hold_everything_with_their_reason() -> None:
    def reason(settings: Settings, **spec: Any) -> Reason:
        made = plan(engine_of(content(**spec)), Observed(), settled={}, fleet=Fleet({}),
                    settings=settings, now_s=0.0)  # fmt: skip
        assert made.actions == ()
        return made.problems[0].reason

    annotated = content()
    annotated["metadata"]["annotations"] = {names.RENDER_VERSION: "999"}
    made = plan(engine_of(annotated), Observed(), settled={}, fleet=Fleet({}),
                settings=Settings(), now_s=0.0)  # fmt: skip
    assert made.actions == ()
    assert made.problems[0].reason is Reason.RENDER_VERSION_UNKNOWN
    assert reason(Settings(), image=None) is Reason.IMAGE_MISSING


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("500m", 0.5), ("1k", 1000), ("10Gi", 10 * 2**30)]
)
def test_quantities_are_the_numbers_they_stand_for(text: str, number: float) -> None:
    assert quantity(text) == number


def test_durations_become_seconds() -> None:
    assert [seconds(one) for one in ("30s", "1h30m", "250ms")] == ["30", "5400", "0.25"]


def test_the_time_of_a_condition_changes_with_its_status_alone() -> None:
    before = [{"type": "Ready", "status": "False", "lastTransitionTime": "t1"}]
    same = Finding("Ready", "False", Reason.CREATING, "x" * 2_000)
    other = Finding("Ready", "True", Reason.AS_WISHED)
    kept = conditions([same], before=before, generation=2, now="t2")[0]
    assert (kept.last_transition_time, len(kept.message)) == ("t1", 1_024)
    assert (
        conditions([other], before=before, generation=2, now="t2")[0].last_transition_time == "t2"
    )


def test_every_reason_has_its_page_and_every_page_its_reason() -> None:
    pages = {path.stem for path in (ROOT / RUNBOOKS).glob("*.md")}
    assert pages == {str(reason) for reason in Reason}


def test_no_engine_is_disturbed_beyond_the_budget_or_after_a_failure() -> None:
    changing = Fleet({"a": Standing.CHANGING, "b": Standing.QUIET})
    assert refusal(changing, "a") is None
    assert "a" in (refusal(changing, "b") or "")
    assert "has failed" in (refusal(Fleet({"a": Standing.FAILED}, changing_max=9), "b") or "")
    assert "not looked at" in (refusal(Fleet({}, unseen=2), "b") or "")
    assert refusal(Fleet({"a": Standing.QUIET}), "b") is None


def test_a_lease_is_taken_only_after_its_whole_duration_without_a_change() -> None:
    lease = {"metadata": {"resourceVersion": "1"}, **taken({}, "one", "t")}
    seen = watch(None, lease, 100.0)
    assert not may_take(lease, seen, "two", 115.0)
    assert may_take(lease, seen, "two", 115.1)
    assert may_take(lease, seen, "one", 100.0)
    assert may_take(released(lease, "t"), seen, "two", 100.0)
    assert watch(seen, lease, 110.0) == seen
    assert taken(lease, "two", "t")["spec"]["leaseTransitions"] == 1


def test_the_first_map_covers_all_shards_evenly() -> None:
    view, _ = view_of(engine_of(content(shards=3)), Observed(), Settings())
    assert view.shard_map == ShardMap.even(3)
    assert names.FINALIZER == "ultraengine.io/finalizer"


def defaults(schema: dict[str, Any]) -> Any:
    """What the API server puts where nothing is said."""
    if "default" not in schema:
        return None
    fields = schema.get("properties", {})
    found = {name: value for name in fields if (value := defaults(fields[name])) is not None}
    return {**found, **schema["default"]} if found else schema["default"]


def test_a_spec_that_says_nothing_means_what_the_api_server_would_write() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "ultraengines.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    written = {name: value for name in spec["properties"]
               if (value := defaults(spec["properties"][name])) is not None}  # fmt: skip
    metadata = content()["metadata"]
    assert written["replicasPerShard"] == 3
    assert engine_of({"metadata": metadata, "spec": {}}) == engine_of(
        {"metadata": metadata, "spec": written}
    )
