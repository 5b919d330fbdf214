"""One object of each kind with every field set, all of it valid: what tests change one thing of."""

import copy
from typing import Any, Final

Content = dict[str, Any]
API_VERSION: Final = "ultraengine.io/v1alpha1"
TIME: Final = "2026-01-01T00:00:00Z"
RESOURCES: Final = {
    "requests": {"cpu": "500m", "memory": "1Gi"},
    "limits": {"cpu": 2, "memory": "2Gi"},
}
CONDITION: Final = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": TIME,
    "reason": "AsWished",
    "message": "all shards and gateways are as wished",
}

ENGINE_SPEC: Final[Content] = {
    "image": "registry.example:5000/ultraengine:0.1.0",
    "shards": 2,
    "replicasPerShard": 1,
    "domains": ["ultraengine.domains.ledger:DOMAIN"],
    "durability": "Sync",
    "storage": {"size": "20Gi", "storageClassName": "fast"},
    "snapshots": {
        "commands": 1_000_000,
        "interval": "1h",
        "replayTime": "10s",
        "kept": 3,
        "mode": "Fork",
    },
    "backup": {
        "location": "s3://bucket/whole?endpoint=http://10.0.0.9:9000&region=eu-central-1",
        "credentialsSecretName": "store",
        "interval": "15m",
    },
    "restore": {
        "location": "s3://bucket/before?endpoint=http://10.0.0.9:9000&region=eu-central-1",
        "credentialsSecretName": "store",
        "time": TIME,
        "offsets": ["9007199254740993"],
    },
    "resources": RESOURCES,
    "gateway": {
        "replicas": 2,
        "resources": RESOURCES,
        "autoscaling": {"maxReplicas": 100, "targetCPUUtilizationPercentage": 70},
        "apiKeysSecretName": "keys",
        "ingress": {
            "host": "shop.example.com",
            "className": "nginx",
            "tlsSecretName": "shop-tls",
            "rateLimit": {"controller": "Nginx", "requestsPerSecond": 50, "connections": 100},
            "annotations": {"cert-manager.io/cluster-issuer": "public"},
        },
    },
    "query": {"replicas": 1, "targetSecretName": "database", "resources": RESOURCES},
    "projections": [{"name": "ledger", "targetSecretName": "database", "resources": RESOURCES}],
    "settings": [{"name": "ULTRA_COMPRESS", "value": "true"}],
    "scheduling": {
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [
            {
                "key": "dedicated",
                "operator": "Equal",
                "value": "oltp",
                "effect": "NoExecute",
                "tolerationSeconds": 60,
            }
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "minDomains": 2,
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "ultraengine"}},
            }
        ],
        "priorityClassName": "high",
    },
    "deletionPolicy": "Retain",
    "confirmDeletion": "whole",
    "reconciliation": "Active",
}
ENGINE_STATUS: Final[Content] = {
    "observedGeneration": 1,
    "conditions": [CONDITION],
    "shards": 2,
    "shardsDesired": 2,
    "replicas": 2,
    "selector": "ultraengine.io/engine=whole",
    "version": "ultraengine:0.1.0",
    "renderVersion": "1",
    "plan": ["apply StatefulSet whole-shard-1"],
    "rebalance": {
        "slotsMoved": 1,
        "slotsTotal": 2048,
        "slotMoving": 4095,
        "slotsPerMinute": 600,
        "etaSeconds": "205",
        "progress": "1/2048",
    },
    "upgrade": {
        "image": "ultraengine:0.2.0",
        "stage": "Shards",
        "shardsDone": 1,
        "shardsTotal": 2,
        "progress": "1/2",
        "shard": 1,
        "candidate": "Failed",
        "firstDifference": "9007199254740993",
    },
    "gatewayAddress": "whole-gateway.default.svc",
    "phase": "Ready",
}
SHARD_SPEC: Final[Content] = {"engine": "whole", "shard": 1, "slots": ["0-2047"], "replicas": 1}
SHARD_STATUS: Final[Content] = {
    "observedGeneration": 1,
    "conditions": [CONDITION],
    "epoch": "18446744073709551615",
    "offset": "9007199254740993",
    "inSync": ["whole-shard-1-0"],
    "leader": "whole-shard-1-0",
    "slots": 2048,
    "volume": "data-whole-shard-1-0",
    "replicas": 1,
    "selector": "ultraengine.io/shard=1",
    "restored": {
        "backup": "1/backups/09007199254740993-00001796055849472114.json",
        "offset": "9007199254740993",
        "stateHash": "00ff",
        "stampedAt": TIME,
    },
    "lastFailover": {
        "oldEpoch": "9007199254740993",
        "newEpoch": "9007199254740994",
        "acknowledgedOffset": "9007199254740993",
        "promotedOffset": "9007199254740993",
        "chain": "00ff",
        "lossless": "True",
        "silentSince": TIME,
        "electedAt": TIME,
        "servingAt": TIME,
        "downtime": "0.450s",
    },
}
SNAPSHOT_SPEC: Final[Content] = {"engine": "whole", "shard": 1}
SNAPSHOT_STATUS: Final[Content] = {
    "observedGeneration": 1,
    "conditions": [CONDITION],
    "shards": [
        {
            "shard": 1,
            "offset": "9007199254740993",
            "offsetEnd": "9007199254740999",
            "stateHash": "00ff",
            "location": "s3://bucket/whole",
            "manifest": "1/backups/09007199254740993-00001796055849472114.json",
            "verifiedAt": TIME,
        }
    ],
}
PLURALS: Final = {"UltraEngine": "ultraengines", "Shard": "shards", "Snapshot": "snapshots"}
_PARTS: Final = {
    "UltraEngine": (ENGINE_SPEC, ENGINE_STATUS),
    "Shard": (SHARD_SPEC, SHARD_STATUS),
    "Snapshot": (SNAPSHOT_SPEC, SNAPSHOT_STATUS),
}


def name_of(kind: str, spec: Content) -> str:
    """A name that suits the spec: a Shard's is made of it."""
    if kind == "Shard":
        return f"{spec.get('engine')}-shard-{spec.get('shard')}"
    return "whole"


def whole(kind: str) -> Content:
    """A fresh object with every field."""
    spec, status = _PARTS[kind]
    return copy.deepcopy({**with_spec(kind, spec), "status": status})


def with_spec(kind: str, spec: Content, *, name: str | None = None) -> Content:
    """An object with this spec and no status."""
    return copy.deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name or name_of(kind, spec)},
            "spec": spec,
        }
    )


def at(content: Any, path: tuple[str, ...]) -> Any:
    """The value at a path; ``[]`` and ``{}`` are the first of their list or map."""
    for step in path:
        if step == "[]":
            content = content[0]
        elif step == "{}":
            content = next(iter(content.values()))
        else:
            content = content[step]
    return content


def put(content: Content, path: tuple[str, ...], value: Any) -> Content:
    """The object with another value at a path; a Shard is renamed to suit."""
    held = at(content, path[:-1])
    last = path[-1]
    if last == "[]":
        held[0] = value
    elif last == "{}":
        held[next(iter(held))] = value
    else:
        held[last] = value
    if isinstance(content["spec"], dict):
        content["metadata"]["name"] = name_of(content["kind"], content["spec"])
    return content


def without(content: Content, path: tuple[str, ...]) -> Content:
    """The object without what is at a path."""
    del at(content, path[:-1])[path[-1]]
    return content
