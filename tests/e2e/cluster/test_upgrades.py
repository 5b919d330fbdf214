"""As an operator, I give an engine another image while clients pay: a build that decides alike
arrives shard by shard, one that decides differently is refused with its offset, and going back
undoes the rest.

The images are the engine's with a domain package of a user's own: the ledger, and a ledger that is
closed today.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.cluster.cluster import Namespace, run, until
from tests.e2e.cluster.engines import Engine
from tests.e2e.cluster.traffic import Traffic

LAB: Final = Path(__file__).parents[3] / "hack" / "lab" / "lab"
OPEN: Final = "from ultraengine.domains.ledger import DOMAIN as DOMAIN\n"
CLOSED: Final = """
from msgspec.structs import replace
from ultraengine.domains.ledger import Ledger
from ultraengine.model.domain import Rejection

def refuse(book, item, context):
    return Rejection("closed_today", "nothing moves today")

class Closed(Ledger):
    commands = [
        replace(spec, decide_item=refuse, lane=None, single=None)
        if spec.name == "create_transfers" else spec
        for spec in Ledger.commands
    ]

DOMAIN = Closed()
"""
DOCKERFILE: Final = """\
FROM ultraengine/engine:lab
COPY books.py /opt/books/books.py
ENV PYTHONPATH=/opt/books
LABEL books={name}
"""
BOOKS: Final = {"first": OPEN, "second": OPEN, "closed": CLOSED}


def image(name: str) -> str:
    return f"ultraengine/books:{name}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three builds of a user's image, in every node."""
    for name, code in BOOKS.items():
        place = tmp_path_factory.mktemp(name)
        (place / "books.py").write_text(code)
        (place / "Dockerfile").write_text(DOCKERFILE.format(name=name))
        run("docker", "build", "--quiet", "--tag", image(name), str(place))
    subprocess.run([LAB, "load", *(image(name) for name in BOOKS)], check=True)


class Books(Engine):
    """Two shards of one copy, and their clients."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(
            namespace, "books", shards=2, port=30082, image=image("first"), domains=["books:DOMAIN"]
        )
        self.apply()
        self.wait_ready()
        self.traffic = Traffic(self.address)
        self.traffic.open_accounts()

    def take(self, name: str) -> None:
        """Wish another image."""
        self.spec["image"] = image(name)
        self.apply()

    def upgrade(self) -> dict[str, Any]:
        """`status.upgrade`; empty when none is under way."""
        found = self.namespace.get("ultraengine", self.name)
        assert found is not None
        upgrade: dict[str, Any] = found["status"].get("upgrade", {})
        return upgrade

    def images(self) -> list[str]:
        """Of the pods of both shards."""
        return [self.pod_of(one)["spec"]["containers"][0]["image"] for one in range(2)]


@pytest.fixture
def books(namespace: Namespace, images: None) -> Iterator[Books]:
    made = Books(namespace)
    yield made
    made.traffic.close()
    made.close()


def test_an_upgrade_loses_nothing_and_a_build_that_differs_is_refused_with_its_offset(
    books: Books,
) -> None:
    with books.traffic:
        books.traffic.go_on(3)
        volumes = books.volumes()
        books.take("second")
        until("a shard is upgraded", lambda: books.upgrade().get("shardsDone") == 1, books.upgrade)
        books.wait_ready()
        assert books.images() == [image("second")] * 2
        books.traffic.go_on(3)
        pods = [books.pod_of(one)["metadata"]["uid"] for one in range(2)]

        books.take("closed")
        stalled = books.wait_for("Stalled", "True", "CandidateDiffers")
        assert "ledger.create_transfers" in stalled["message"]
        assert f"offset {books.upgrade()['firstDifference']}" in stalled["message"]
        assert books.images() == [image("second")] * 2

        books.take("second")
        books.wait_ready()
        books.traffic.go_on(3)
        assert [books.pod_of(one)["metadata"]["uid"] for one in range(2)] == pods
        assert books.volumes() == volumes
    books.traffic.check()
