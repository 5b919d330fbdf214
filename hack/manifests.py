"""`make manifests`: write `manifests/install.yaml`, everything of `manifests/base` in one file.

The base uses nothing of kustomize but `resources` and `images`, so this needs no program beside
Python; `make e2e-api` compares the result with what `kubectl kustomize` makes of the same base.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BASE = ROOT / "manifests" / "base"
INSTALL = ROOT / "manifests" / "install.yaml"
HEADER = """\
# Everything that a cluster needs before engines can be applied. Made by `make manifests` from
# manifests/base; change it there.  kubectl apply --server-side -f install.yaml
"""
ORDER = [
    "Namespace", "CustomResourceDefinition", "ServiceAccount", "Role", "ClusterRole",
    "RoleBinding", "ClusterRoleBinding", "PodDisruptionBudget", "NetworkPolicy", "Deployment",
]  # fmt: skip
"""What others need comes first."""
KNOWN = {"apiVersion", "kind", "resources", "images"}


class Plain(yaml.SafeDumper):
    """YAML without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is the base class's.
        """Write everything out."""
        return True


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """All objects of a kustomization and of those that it names."""
    text = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := text.keys() - KNOWN:
        raise ValueError(f"{folder}: {', '.join(sorted(unknown))} is not for a base")
    tags = {one["name"]: one["newTag"] for one in text.get("images", ())}
    for name in text["resources"]:
        path = folder / name
        found = documents(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
        for document in found:
            _tag(document, tags)
            yield document


def _tag(document: dict[str, Any], tags: dict[str, str]) -> None:
    if document["kind"] == "Deployment":
        for container in document["spec"]["template"]["spec"]["containers"]:
            if container["image"] in tags:
                container["image"] += f":{tags[container['image']]}"


def install() -> str:
    """The text of the file."""
    found = sorted(documents(BASE), key=lambda one: ORDER.index(one["kind"]))
    parts = (
        yaml.dump(one, Dumper=Plain, sort_keys=False, allow_unicode=True, width=100)
        for one in found
    )
    return HEADER + "---\n".join(parts)


def main() -> int:
    """Write it if it changed, and say so."""
    text = install()
    if not INSTALL.exists() or INSTALL.read_text() != text:
        INSTALL.write_text(text)
        print(f"manifests: wrote {INSTALL.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
