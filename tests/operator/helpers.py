"""What the operator's tests share: examples, a context, a parsed service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from embedding_operator.api import EmbeddingService, parse
from embedding_operator.render import RenderContext

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CRD = ROOT / "crds" / "embeddingservices.yaml"

CONTEXT = RenderContext(
    runtime_image="registry.example.com/embedding-runtime:1.2.3",
    replicas=1,
    operator_namespace="embedding-system",
    operator_pod_labels={"app.kubernetes.io/name": "embedding-operator"},
)

MINIMAL: dict[str, Any] = {"model": {"huggingFace": {"repository": "sentence-transformers/all-MiniLM-L6-v2"}}}


def example(path: Path) -> dict[str, Any]:
    """An example as it would stand in the cluster: with a namespace and a uid."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["metadata"] |= {"namespace": "search", "uid": "00000000-0000-4000-8000-000000000001", "generation": 1}
    return document


def resource(spec: dict[str, Any] | None = None, name: str = "minilm") -> dict[str, Any]:
    """An EmbeddingService object; the smallest one when no spec is given."""
    return {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name, "namespace": "search", "uid": "00000000-0000-4000-8000-000000000001"},
        "spec": MINIMAL if spec is None else spec,
    }


def service(spec: dict[str, Any] | None = None, name: str = "minilm") -> EmbeddingService:
    """The same, parsed."""
    return parse(resource(spec, name))
