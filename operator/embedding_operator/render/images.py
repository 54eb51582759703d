"""Which image the runtime container runs."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService, PullPolicy
from embedding_operator.api.runtime import ImageSettings

from .context import RenderContext


def image_reference(service: EmbeddingService, context: RenderContext) -> str:
    """Full reference of the runtime's image: the spec's own, otherwise the operator's."""
    runtime = service.spec.runtime
    if runtime.nim is not None:
        return _reference(runtime.nim.image.repository, runtime.nim.image)
    image = service.spec.bundled.image
    if image is None or image.repository is None:
        return context.runtime_image
    return _reference(image.repository, image)


def pull_policy(service: EmbeddingService, context: RenderContext) -> PullPolicy:
    """When the node fetches the runtime's image."""
    image = _settings(service)
    return context.pull_policy if image is None or image.pull_policy is None else image.pull_policy


def pull_secrets(service: EmbeddingService, context: RenderContext) -> list[dict[str, str]]:
    """Pull secrets of the Pod: the operator's, then the spec's, each once."""
    image = _settings(service)
    own = () if image is None else tuple(secret.name for secret in image.pull_secrets)
    return [{"name": name} for name in dict.fromkeys((*context.pull_secrets, *own))]


def _settings(service: EmbeddingService) -> ImageSettings | None:
    runtime = service.spec.runtime
    return runtime.nim.image if runtime.nim is not None else service.spec.bundled.image


def _reference(repository: str, image: ImageSettings) -> str:
    tag = f":{image.tag}" if image.tag else ""
    digest = f"@{image.digest}" if image.digest else ""
    return f"{repository}{tag}{digest}"
