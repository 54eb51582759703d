"""The chart's metrics API: registered whole, or not at all."""

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography import x509
from embedding_operator.metrics_api.answers import GROUP_VERSION
from embedding_operator.settings import Settings

from tests.chart.helpers import ALL_ON, FULLNAME, NAMESPACE, Rendered, RenderError, notes, render, rights

ON = {"metricsApi.enabled": True, "replicaCount": 2}
NAME = f"{FULLNAME}-metrics-api"


def certificate(result: Rendered, file: str) -> bytes:
    return base64.b64decode(result.one("Secret")["data"][file])


def mounted(result: Rendered) -> str:
    (volume,) = [item for item in result.pod_spec["volumes"] if item["name"] == "metrics-api"]
    assert [item["path"] for item in volume["secret"]["items"]] == ["tls.crt", "tls.key"]
    return str(volume["secret"]["secretName"])


def test_off_renders_nothing_of_it() -> None:
    result = render()
    assert not {"APIService", "Secret", "Certificate", "Issuer"} & {item["kind"] for item in result.objects}
    assert "metrics-api" not in result.text
    assert "METRICS_API" not in result.text
    assert "kube-system" not in result.text


def test_the_api_service_trusts_the_certificate_that_the_pods_serve(tmp_path: Path) -> None:
    result = render(ON)
    registration = result.one("APIService")
    assert registration["metadata"]["name"] == f"v1beta2.{registration['spec']['group']}"
    assert f"{registration['spec']['group']}/{registration['spec']['version']}" == GROUP_VERSION
    assert registration["spec"]["service"] == {"name": NAME, "namespace": NAMESPACE, "port": 8443}
    assert "insecureSkipTLSVerify" not in registration["spec"]
    authority = base64.b64decode(registration["spec"]["caBundle"])
    assert authority == certificate(result, "ca.crt")
    assert mounted(result) == result.one("Secret")["metadata"]["name"]

    serving, issuer = (x509.load_pem_x509_certificate(pem) for pem in (certificate(result, "tls.crt"), authority))
    serving.verify_directly_issued_by(issuer)
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert f"{NAME}.{NAMESPACE}.svc" in names.get_values_for_type(x509.DNSName)
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).write_bytes(certificate(result, file))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")


def test_the_service_leads_to_the_port_that_the_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = render(ON)
    (port,) = result.one("Service", NAME)["spec"]["ports"]
    (target,) = [item for item in result.container["ports"] if item["name"] == port["targetPort"]]
    for name, value in result.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.metrics_api_enabled
    assert settings.metrics_api_port == target["containerPort"]
    (mount,) = [item for item in result.container["volumeMounts"] if item["name"] == "metrics-api"]
    assert str(settings.metrics_api_cert_dir) == mount["mountPath"]


def test_cert_manager_makes_the_certificate_instead() -> None:
    result = render({**ON, "metricsApi.certManager.enabled": True})
    assert not result.all("Secret")
    issuer, asked = result.one("Issuer"), result.one("Certificate")
    assert issuer["spec"] == {"selfSigned": {}}
    assert asked["spec"]["issuerRef"] == {"kind": "Issuer", "name": issuer["metadata"]["name"]}
    assert f"{NAME}.{NAMESPACE}.svc" in asked["spec"]["dnsNames"]
    assert asked["spec"]["secretName"] == mounted(result)
    registration = result.one("APIService")
    injected = registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert injected == f"{NAMESPACE}/{asked['metadata']['name']}"
    assert "caBundle" not in registration["spec"]

    given = render({}, ALL_ON)
    assert not given.all("Issuer")
    issuer_of_theirs = {"name": "internal", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert given.one("Certificate")["spec"]["issuerRef"] == issuer_of_theirs


@pytest.mark.parametrize("files", [(), (ALL_ON,)], ids=["own issuer", "given issuer"])
def test_cert_manager_admits_what_is_asked_of_it(files: tuple[Path, ...]) -> None:
    """By its own schema; a field it does not know would be dropped without a word."""
    schemas = json.loads(Path(__file__).with_name("cert-manager-v1.json").read_text())
    values = {} if files else {**ON, "metricsApi.certManager.enabled": True}
    result = render(values, *files)
    found = [item for item in result.objects if item["apiVersion"].startswith("cert-manager.io/")]
    assert {item["kind"] for item in found} == ({"Certificate"} if files else {"Certificate", "Issuer"})
    for item in found:
        assert item["apiVersion"] == "cert-manager.io/v1"
        assert item["metadata"]["namespace"]
        jsonschema.Draft202012Validator(schemas[item["kind"]]).validate(item["spec"])


def test_only_the_front_proxy_and_the_autoscaler_are_granted_anything_more() -> None:
    before, after = render({"replicaCount": 2}), render(ON)
    kinds = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    known = {(item["kind"], item["metadata"]["name"]) for kind in kinds for item in before.all(kind)}
    new = [item for kind in kinds for item in after.all(kind) if (kind, item["metadata"]["name"]) not in known]
    binding, role, autoscalers = new
    assert binding["metadata"]["namespace"] == "kube-system"
    assert binding["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": FULLNAME, "namespace": NAMESPACE}]
    assert rights(role) == {("custom.metrics.k8s.io", "pods/embedding_utilization", "get")}
    account = {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
    assert autoscalers["subjects"] == [account]
    assert autoscalers["roleRef"]["name"] == role["metadata"]["name"]
    assert after.one("ClusterRole", FULLNAME) == before.one("ClusterRole", FULLNAME)


def test_the_api_server_is_let_in() -> None:
    port = {"ports": [{"port": "metrics-api", "protocol": "TCP"}]}
    alone = render({**ON, "networkPolicy.enabled": True}).one("NetworkPolicy")["spec"]["ingress"]
    assert alone == [port]
    others, admitted = render({}, ALL_ON).one("NetworkPolicy")["spec"]["ingress"]
    assert admitted == port
    assert others["ports"] == [{"port": "http", "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"watchNamespaces": ["search"]}, "set watchNamespaces=null or metricsApi.enabled=false"),
        ({"metricsApi.certManager.issuerRef": {"kind": "Issuer"}}, "at '/metricsApi/certManager/issuerRef'"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError) as refused:
        render({**ON, **values})
    assert message in str(refused.value)


def test_one_replica_is_warned_about() -> None:
    images = {"image.repository": "registry.example.com/x", "runtime.image.repository": "registry.example.com/y"}
    assert "Set replicaCount=2" in notes({**images, "metricsApi.enabled": True})
    assert "replicaCount" not in notes({**images, **ON})
