"""The children of a spec, and specs that differ from the smallest one in one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedding_operator.render import Child, render

from tests.operator.helpers import CONTEXT, MINIMAL, service

Json = dict[str, Any]

Effect = tuple[str, Json, Callable[["Rendered"], Any], Any]
"""A field, a spec that sets it, where its effect shows, and the effect."""

HUB = MINIMAL["model"]["huggingFace"]


class Rendered:
    """The children of a spec, with short names for what tests look at."""

    def __init__(self, spec: Json) -> None:
        self.children: dict[str, Child] = {child["kind"]: child for child in render(service(spec), CONTEXT)}

    def spec(self, kind: str) -> Json:
        found: Json = self.children[kind]["spec"]
        return found

    @property
    def template(self) -> Json:
        found: Json = self.spec("Deployment")["template"]
        return found

    @property
    def pod(self) -> Json:
        found: Json = self.template["spec"]
        return found

    @property
    def runtime(self) -> Json:
        found: Json = self.pod["containers"][0]
        return found

    @property
    def env(self) -> dict[str, Any]:
        return {it["name"]: it.get("value", it.get("valueFrom", "")) for it in self.runtime["env"]}

    @property
    def volumes(self) -> dict[str, Json]:
        return {it["name"]: {key: value for key, value in it.items() if key != "name"} for it in self.pod["volumes"]}

    @property
    def mounts(self) -> dict[str, str]:
        return {it["name"]: it["mountPath"] for it in self.runtime["volumeMounts"]}

    def argument(self, flag: str) -> str | None:
        arguments = self.runtime["args"]
        return arguments[arguments.index(flag) + 1] if flag in arguments else None


def model(**fields: Any) -> Json:
    return {"model": {"huggingFace": HUB, **fields}}


def claim(**fields: Any) -> Json:
    return {"model": {"persistentVolumeClaim": {"claimName": "models", **fields}}}


def image(**fields: Any) -> Json:
    return {"model": {"image": {"reference": "registry.example.com/m:1", **fields}}}


def bundled(**fields: Any) -> Json:
    return {**MINIMAL, "runtime": {"bundled": fields}}


def own_image(**fields: Any) -> Json:
    return bundled(image={"repository": "registry.example.com/r", "tag": "1", **fields})


def nim(**fields: Any) -> Json:
    return {"runtime": {"type": "NIM", "nim": {"image": {"repository": "nvcr.io/nim/e5", "tag": "1.6.0"}, **fields}}}


def nim_image(**fields: Any) -> Json:
    return nim(image={"repository": "nvcr.io/nim/e5", "tag": "1.6.0", **fields})


def plus(**fields: Any) -> Json:
    return {**MINIMAL, **fields}
