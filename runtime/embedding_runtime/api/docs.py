"""GET /docs: the description as one page of plain HTML, without scripts, fonts or anything else from other hosts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:#f4f4f4;padding:1rem;overflow:auto}table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}
.method{background:#246;color:#fff;border-radius:3px;padding:.1rem .5rem;margin-right:.5rem}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#262626}}
"""


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        "<p>Machine-readable: <a href=openapi.json>openapi.json</a></p>",
    ]
    for path, operations in document["paths"].items():
        parts += [_operation(document, path, method, operation) for method, operation in operations.items()]
    return "".join(parts)


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<h2><code><span class=method>{method.upper()}</span>{escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>",
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content:
        parts.append(_fields(_resolve(document, content["schema"])))
        body = json.dumps(content["example"])
        command = f"curl -s localhost:8000{path} -H 'content-type: application/json' -d '{body}'"
        parts.append(f"<pre>{escape(command)}</pre>")
    rows = "".join(
        f"<tr><td><code>{status}</code><td>{escape(response['description'])}<td>{escape(_shape(response))}"
        for status, response in sorted(operation["responses"].items())
    )
    parts.append(f"<table><tr><th>status<th>meaning<th>answer{rows}</table>")
    return "".join(parts)


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}"
        f"<td>{escape(_type(field))}<td>{escape(str(field.get('default') or ''))}"
        f"<td>{escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>field<th>type<th>default<th>meaning{rows}</table>"


def _type(field: dict[str, Any]) -> str:
    options = [option for option in field.get("anyOf") or field.get("oneOf") or [field] if option.get("type") != "null"]
    return " or ".join(_plain_type(option) for option in options)


def _plain_type(option: dict[str, Any]) -> str:
    if "enum" in option:
        return " | ".join(map(str, option["enum"]))
    if option.get("type") == "array":
        return f"array of {_type(option['items'])}"
    return str(option.get("type", "any"))


def _shape(response: dict[str, Any]) -> str:
    for content in response.get("content", {}).values():
        reference = content.get("schema", {}).get("$ref", "")
        return str(reference.rsplit("/", 1)[-1])
    return ""


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].rsplit("/", 1)[-1]
    resolved: dict[str, Any] = document["components"]["schemas"][name]
    return resolved
