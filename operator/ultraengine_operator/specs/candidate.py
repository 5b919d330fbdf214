"""A candidate: a pod of the next image that decides a shard's log again, beside the shard.

It has what the shard's pods are told, the hop key that the gateways of the same image have already,
and an empty directory: no volume of the shard, no token, no certificate of a copy. It asks the
Service of the shard, which leads to who leads. It ends, and is never started again; its name, its
image and what it was told are those of one question, so that another question is another pod.
"""

from typing import Final

from ultraengine_operator import names
from ultraengine_operator.specs import engine
from ultraengine_operator.specs.pods import (
    container_security,
    mounted,
    pod_security,
    temporary,
    variables,
)
from ultraengine_operator.specs.view import EngineView, Manifest, child

COMPONENT: Final = "candidate"
GRACE_S: Final = 5
SPARE_S: Final = 300
"""Of the pod's deadline beside the candidate's own: for its image, and its start."""
VERDICT: Final = "/dev/termination-log"


def pod(view: EngineView, shard: int, within_s: float) -> Manifest:
    """The pod, made once and never changed."""
    spec = view.engine.spec
    hop = mounted("hop", "/etc/ultra/hop", secret={"secretName": f"{view.name}-hop"})
    data = mounted("data", "/data", emptyDir={"sizeLimit": spec.storage.size})
    mounts = [temporary(), hop, data]
    told = engine.told(view, shard)
    for name in ("ULTRA_MAP", "ULTRA_ENGINE_UID"):
        del told[name]
    told["ULTRA_DATA"] = "/data/borrowed"
    address = f"http://{names.shard_name(view.name, shard)}.{view.namespace}.svc:{names.HTTP_PORT}"
    container: Manifest = {
        "name": COMPONENT,
        "image": view.image,
        "args": [
            "candidate", "--url", address, "--within", str(int(within_s)), "--verdict", VERDICT,
        ],
        "env": variables(told),
        "securityContext": container_security(),
        "terminationMessagePath": VERDICT,
        "volumeMounts": [mount for _, mount in mounts],
    }  # fmt: skip
    if spec.resources:
        container["resources"] = spec.resources
    wish = spec.scheduling
    placed: Manifest = {}
    if wish.node_selector:
        placed["nodeSelector"] = wish.node_selector
    if wish.tolerations:
        placed["tolerations"] = wish.tolerations
    return child(
        view, "Pod", "v1", names.candidate_name(view.name, shard), COMPONENT, shard=shard,
        spec={
            "serviceAccountName": f"{view.name}-engine",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(within_s) + SPARE_S,
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [volume for volume, _ in mounts],
            **placed,
        },
    )  # fmt: skip
