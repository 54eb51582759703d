"""The GET routes: health, models, metrics, metadata, manifest, license, version."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from prometheus_client import exposition
from starlette.requests import Request
from starlette.responses import Response

from embedding_runtime import __version__
from embedding_runtime.api.errors import retry_after_header
from embedding_runtime.api.resolve import unknown_model
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.model import ModelIdentity
from embedding_runtime.telemetry import Metrics

API_VERSION = "1.0.0"
_LICENSE = "LICENSE.txt"


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers=headers, media_type="application/json")


class InformationHandler:
    """Answers what the server is and how it is. Never waits for anything."""

    def __init__(self, state: ServiceState, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics

    async def ready(self, request: Request) -> Response:
        ready, message = self._state.readiness()
        body = {"object": "health.response", "message": message, "ready": ready}
        return json_response(body) if ready else json_response(body, 503, {"retry-after": retry_after_header(1)})

    async def live(self, request: Request) -> Response:
        live = self._state.is_live()
        message = "live" if live else "the engine failed; this replica will restart"
        body = {"object": "health.response", "message": message, "live": live}
        return json_response(body) if live else json_response(body, 503, {"retry-after": retry_after_header(1)})

    async def models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [self._model(name) for name in self._state.names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model_id"]
        if name not in self._state.names:
            raise unknown_model(name, self._state.names)
        return json_response(self._model(name))

    async def metrics(self, request: Request) -> Response:
        encoder, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._metrics.registry), media_type=content_type)

    async def manifest(self, request: Request) -> Response:
        identity = self._state.require_engine().model.identity
        body = {
            "schema_version": 1,
            "model": {
                **_identity(identity),
                "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in identity.files],
            },
            "runtime": {"name": "embedding-runtime", "version": __version__},
        }
        return json_response(body)

    async def metadata(self, request: Request) -> Response:
        engine = self._state.engine
        identity = engine.model.identity if engine else None
        name = self._state.served_name
        source = identity.source if identity else ""
        body = {
            "assetInfo": [],
            "licenseInfo": license_info(),
            "modelInfo": [{"modelUrl": source, "shortName": name}],
            "repository_override": "",
            "version": __version__,
            "selectedModelProfileId": identity.fingerprint if identity else "",
            "model": _identity(identity) if identity else None,
            "engine": {"capacity_tokens_per_second": engine.capacity(), "utilization": engine.utilization()}
            if engine
            else None,
        }
        return json_response(body)

    async def license(self, request: Request) -> Response:
        return json_response(license_info())

    async def version(self, request: Request) -> Response:
        return json_response({"release": __version__, "api": API_VERSION})

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._state.created,
            "owned_by": "embedding-runtime",
            "root": self._state.served_name,
            "parent": None,
        }


def _identity(identity: ModelIdentity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "revision": identity.revision,
        "source": identity.source,
        "fingerprint": identity.fingerprint,
        "dimensions": identity.dimensions,
        "supported_dimensions": list(identity.supported_dimensions),
        "max_input_tokens": identity.max_input_tokens,
        "pooling": identity.pooling,
        "normalized": identity.normalized,
        "modalities": list(identity.modalities),
        "prompts": dict(identity.prompts),
        "precision": identity.precision,
        "computation": None if identity.computation is None else asdict(identity.computation),
    }


@cache
def license_info() -> dict[str, Any]:
    """The license of this software: SHA-1 and number of characters of its text, as NIM's endpoint gives them."""
    content = (files("embedding_runtime") / _LICENSE).read_text(encoding="utf-8")
    return {
        "name": "Apache License 2.0",
        "path": _LICENSE,
        "sha": hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest(),
        "size": len(content),
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
        "type": "file",
        "content": content,
    }
