"""As an operator, I delete an engine, apply it again, and have my books back."""

from tests.e2e.cluster.cluster import Namespace, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.traffic import Traffic

ADOPT = "ultraengine.io/adopt-uid"


def test_an_engine_that_is_applied_again_serves_what_the_deleted_one_kept(
    namespace: Namespace,
) -> None:
    engine = Engine(namespace, "bank", shards=1, port=30081)
    traffic = Traffic(engine.address)
    try:
        engine.apply()
        engine.wait_ready()
        traffic.open_accounts()
        with traffic:
            traffic.go_on(5)
        volumes = engine.volumes()
        first = namespace.get("ultraengine", "bank")
        assert first is not None

        namespace.kubectl("delete", "ultraengine", "bank")
        label = "--selector=ultraengine.io/engine=bank"
        until(
            "all pods are gone",
            lambda: not namespace.kubectl("get", "pods", label, "--output=name"),
        )
        assert engine.volumes() == volumes
        assert len(volumes) == 1

        engine.apply()
        told = engine.wait_for("Stalled", "True", "VolumesOfAnotherEngine")
        uid = first["metadata"]["uid"]
        assert uid in told["message"]
        engine.apply(annotations={ADOPT: uid})
        engine.wait_ready()
        traffic.check()
        with traffic:
            traffic.go_on(5)
        traffic.check()
        assert engine.volumes() == volumes
    finally:
        traffic.close()
        engine.close()
