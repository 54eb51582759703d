"""Writes what is derived from the API models: the CRD, the chart's copy of it and docs/reference.

`--verify` writes nothing and fails when a file is stale. `--refresh-kubernetes-schemas` first extracts the schemas of
borrowed types from the API server of KUBECONFIG.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml
from embedding_operator.api import kubernetes_schemas as vendored
from embedding_operator.api.crd import custom_resource_definition

from tools import kubernetes_schemas
from tools.reference import reference

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "operator" / "embedding_operator" / "api" / vendored.FILE
NOTICE = "# Generated from operator/embedding_operator/api by `make generate`; do not edit.\n"


def crd_yaml() -> str:
    """The CRD for `kubectl apply`."""
    return NOTICE + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120, allow_unicode=True)


def chart_crd_yaml() -> str:
    """The CRD as a chart template: installed and upgraded by Helm, kept on uninstall where the values say so."""
    text = crd_yaml().removeprefix(NOTICE).replace("{{", '{{ "{{" }}')
    name = f"metadata:\n  name: {custom_resource_definition()['metadata']['name']}\n"
    assert name in text
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    labels = '  labels:\n    {{- include "embedding-operator.labels" . | nindent 4 }}\n'
    return f"{NOTICE}{{{{- if .Values.crds.enabled }}}}\n{text.replace(name, name + keep + labels)}{{{{- end }}}}\n"


def generated() -> dict[Path, str]:
    """Path to contents of every generated file."""
    return {
        ROOT / "crds" / "embeddingservices.yaml": crd_yaml(),
        ROOT / "charts" / "embedding-operator" / "templates" / "crds" / "embeddingservices.yaml": chart_crd_yaml(),
        ROOT / "docs" / "reference" / "embeddingservice.md": reference(),
    }


def stale(files: dict[Path, str]) -> list[Path]:
    """Those of the files whose contents on disk differ."""
    return [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when all is written or up to date, 1 when stale or no API server was reached."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("--verify", action="store_true", help="write nothing; fail when a generated file is stale")
    parser.add_argument(
        "--refresh-kubernetes-schemas",
        action="store_true",
        help="extract the schemas of borrowed Kubernetes types with kubectl from the cluster of KUBECONFIG first",
    )
    options = parser.parse_args(arguments)
    if options.refresh_kubernetes_schemas:
        try:
            SCHEMAS.write_text(kubernetes_schemas.extract(), encoding="utf-8")
        except subprocess.CalledProcessError as error:
            print(f"error: kubectl reached no API server: {error.stderr.strip()}; set KUBECONFIG", file=sys.stderr)
            return 1
    outdated = stale(files := generated())
    if options.verify:
        for path in outdated:
            print(f"stale: {path.relative_to(ROOT)}", file=sys.stderr)
        if outdated:
            print("run `make generate` and commit what it writes", file=sys.stderr)
        return 1 if outdated else 0
    for path in outdated:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
