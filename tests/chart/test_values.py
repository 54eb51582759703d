"""What each value does, what is refused, and that all of them are documented."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedding_operator.control.operator import POD_LABELS
from embedding_operator.settings import LogFormat, LogLevel, Settings

from tests.chart.helpers import ALL_ON, CHART, FULLNAME, NAMESPACE, REPOSITORY, RenderError, render
from tools.chart_values import ValuesError, describe, read, readme_with, wanted

DIGEST = "sha256:" + "0123456789abcdef" * 4


# --- images


@pytest.mark.parametrize(
    ("tag", "digest", "reference"),
    [
        ("", "", "embedding-operator:{version}"),
        ("1.2.3", "", "embedding-operator:1.2.3"),
        ("", DIGEST, f"embedding-operator@{DIGEST}"),
        ("1.2.3", DIGEST, f"embedding-operator:1.2.3@{DIGEST}"),
    ],
)
def test_image_references(tag: str, digest: str, reference: str) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    expected = reference.format(version=version)
    assert render({"image.tag": tag, "image.digest": digest}).container["image"] == expected
    runtime = render({"runtime.image.tag": tag, "runtime.image.digest": digest})
    assert runtime.environment["EMBEDDING_OPERATOR_RUNTIME_IMAGE"] == expected.replace("operator", "runtime")
    assert runtime.container["image"] == f"embedding-operator:{version}"


def test_a_registry_with_a_port() -> None:
    result = render({}, ALL_ON)
    assert result.container["image"].startswith("registry.example.com:5000/team/embedding-operator:1.2.3@sha256:aa")
    assert result.environment["EMBEDDING_OPERATOR_RUNTIME_IMAGE"].startswith(
        "registry.example.com:5000/team/embedding-runtime:4.5.6@sha256:bb"
    )


# --- the operator's settings


def test_the_settings_of_a_default_install() -> None:
    result = render()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert result.environment == {
        "EMBEDDING_OPERATOR_WATCH_NAMESPACES": "",
        "EMBEDDING_OPERATOR_RUNTIME_IMAGE": f"embedding-runtime:{version}",
        "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_POLICY": "IfNotPresent",
        "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_SECRETS": "",
        "EMBEDDING_OPERATOR_MANAGE_MONITORING": "false",
        "EMBEDDING_OPERATOR_PORT": "8080",
        "EMBEDDING_OPERATOR_LOG_LEVEL": "Info",
        "EMBEDDING_OPERATOR_LOG_FORMAT": "Json",
        "EMBEDDING_OPERATOR_LEASE_NAME": FULLNAME,
    }
    references = {item["name"]: item["valueFrom"] for item in result.container["env"] if "valueFrom" in item}
    assert references == {
        "EMBEDDING_OPERATOR_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "EMBEDDING_OPERATOR_POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
    }
    assert result.container["args"] == ["run"]
    assert "command" not in result.container


def test_settings_follow_the_values() -> None:
    environment = render({}, ALL_ON).environment
    assert environment["EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_POLICY"] == "Always"
    assert environment["EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_SECRETS"] == "registry,other"
    assert environment["EMBEDDING_OPERATOR_LOG_LEVEL"] == "Debug"
    assert environment["EMBEDDING_OPERATOR_LOG_FORMAT"] == "Text"
    assert environment["EMBEDDING_OPERATOR_LEASE_NAME"] == "vector-operator"


def test_the_operator_understands_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = render({"watchNamespaces": ["search", "ads"]}, ALL_ON).environment
    own = {name: value for name, value in environment.items() if name.startswith("EMBEDDING_OPERATOR_")}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert {name.removeprefix("EMBEDDING_OPERATOR_").lower() for name in own} <= set(Settings.model_fields)
    assert settings.watch_namespaces == ("ads", "search")
    assert settings.runtime_image == environment["EMBEDDING_OPERATOR_RUNTIME_IMAGE"]
    assert settings.runtime_image_pull_policy == "Always"
    assert settings.runtime_image_pull_secrets == ("registry", "other")
    assert settings.lease_name == "vector-operator"
    assert settings.manage_monitoring is True
    assert (settings.log_level.value, settings.log_format.value) == ("Debug", "Text")


def test_every_level_and_format_of_the_operator_can_be_chosen() -> None:
    logging = json.loads((CHART / "values.schema.json").read_text())["properties"]["logging"]["properties"]
    assert logging["level"]["enum"] == [level.value for level in LogLevel]
    assert logging["format"]["enum"] == [form.value for form in LogFormat]


@pytest.mark.parametrize("files", [(), (ALL_ON,)])
def test_services_network_policies_recognise_the_operators_pods(files: tuple[Path, ...]) -> None:
    """Whatever the values, the labels by which the operator lets itself in are on its Pods."""
    labels = render({}, *files).deployment["spec"]["template"]["metadata"]["labels"]
    assert POD_LABELS.items() <= labels.items()


def test_extra_environment_is_added_last() -> None:
    assert render({}, ALL_ON).container["env"][-2:] == [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]


@pytest.mark.parametrize("names", [["EMBEDDING_OPERATOR_PORT"], ["EMBEDDING_OPERATOR_POD_NAME"], ["A", "A"]])
def test_an_environment_variable_given_twice_is_refused(names: list[str]) -> None:
    with pytest.raises(RenderError, match=f"extraEnv: {names[0]} is set by the chart or given twice"):
        render({"extraEnv": [{"name": name, "value": "1"} for name in names]})


# --- the Pod


def test_probes_ask_health_and_readiness() -> None:
    container = render().container
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_zero_is_a_value() -> None:
    result = render({"replicaCount": 0, "revisionHistoryLimit": 0})
    assert result.deployment["spec"]["replicas"] == 0
    assert result.deployment["spec"]["revisionHistoryLimit"] == 0
    budget = render({"replicaCount": 2, "disruptionBudget.maxUnavailable": 0}).one("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 0


def test_scheduling_reaches_the_pod() -> None:
    given, pod = yaml.safe_load(ALL_ON.read_text()), render({}, ALL_ON).pod_spec
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert pod[key] == given[key]
    assert pod["terminationGracePeriodSeconds"] == 45
    assert render({}, ALL_ON).container["resources"] == given["resources"]


def test_a_spread_constraint_selects_the_operators_own_pods_unless_told() -> None:
    own = {"matchLabels": {"app.kubernetes.io/name": "embedding-operator", "app.kubernetes.io/instance": "release"}}
    (constraint,) = render().pod_spec["topologySpreadConstraints"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": own,
    }
    other = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    selector = {"matchLabels": {"a": "b"}}
    given = [other | {"labelSelector": selector}, other]
    rendered = render({"topologySpreadConstraints": given}).pod_spec["topologySpreadConstraints"]
    # A label the user names is kept; what the user leaves out is not added to it.
    assert [item["labelSelector"] for item in rendered] == [selector, own]


def test_the_users_labels_never_replace_the_charts() -> None:
    result = render({}, ALL_ON)
    for item in result.objects:
        assert item["metadata"]["labels"]["team"] == "search"
        assert item["metadata"]["labels"]["app.kubernetes.io/name"] == "vectors"
    pod = result.deployment["spec"]["template"]["metadata"]
    assert pod["labels"]["mesh"] == "off"
    assert pod["labels"]["team"] == "search"
    assert pod["labels"]["app.kubernetes.io/instance"] == "release"
    assert pod["annotations"] == {"example.com/note": "hello"}


# --- the objects around it


@pytest.mark.parametrize(("replicas", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_disruption_budget_only_where_it_can_help(replicas: int, expected: int) -> None:
    assert len(render({"replicaCount": replicas}).all("PodDisruptionBudget")) == expected


def test_the_service_monitor_scrapes_the_service() -> None:
    result = render({}, ALL_ON)
    monitor, service = result.one("ServiceMonitor"), result.one("Service")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "5s")
    assert endpoint["relabelings"] == [{"action": "labeldrop", "regex": "pod"}]
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    assert service["spec"]["ports"] == [{"name": "http", "port": 9090, "targetPort": "http", "protocol": "TCP"}]


def test_a_service_monitor_without_its_service_is_refused() -> None:
    with pytest.raises(
        RenderError, match=r"set metrics\.service\.enabled=true, or metrics\.serviceMonitor\.enabled=false"
    ):
        render({"metrics.serviceMonitor.enabled": True, "metrics.service.enabled": False})


def test_the_network_policy_admits_only_whom_it_names() -> None:
    closed = render({"networkPolicy.enabled": True}).one("NetworkPolicy")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert closed["ingress"] == []
    peer = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    opened = render({"networkPolicy.enabled": True, "networkPolicy.allowFrom": [peer]}).one("NetworkPolicy")["spec"]
    assert opened["ingress"] == [{"from": [peer], "ports": [{"port": "http", "protocol": "TCP"}]}]


def test_the_network_policy_lets_out_names_the_api_server_and_the_services_pods() -> None:
    dns, api, pods = render({"networkPolicy.enabled": True}).one("NetworkPolicy")["spec"]["egress"]
    assert dns == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert api == {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}
    selector = {"matchExpressions": [{"key": "embedding-operator.io/service", "operator": "Exists"}]}
    assert pods == {"to": [{"namespaceSelector": {}, "podSelector": selector}]}
    _, api, _ = render({}, ALL_ON).one("NetworkPolicy")["spec"]["egress"]
    assert api == {"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
    values = {"networkPolicy.enabled": True, "watchNamespaces": ["search", "ads"]}
    *_, pods = render(values).one("NetworkPolicy")["spec"]["egress"]
    names = [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ads", "search"]}]
    assert pods == {"to": [{"namespaceSelector": {"matchExpressions": names}, "podSelector": selector}]}


# --- the CustomResourceDefinition


def test_the_custom_resource_definition_is_kept_unless_told() -> None:
    crd = render().one("CustomResourceDefinition")
    assert crd["metadata"]["name"] == "embeddingservices.embedding-operator.io"
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in render({"crds.keep": False}).one("CustomResourceDefinition")[
        "metadata"
    ].get("annotations", {})
    assert not render({"crds.enabled": False}).all("CustomResourceDefinition")


def test_the_charts_custom_resource_definition_is_the_published_one() -> None:
    (published,) = [yaml.safe_load(path.read_text()) for path in (REPOSITORY / "crds").glob("*.yaml")]
    assert render().one("CustomResourceDefinition")["spec"] == published["spec"]


def test_a_definition_that_nothing_would_keep_cannot_be_switched_off() -> None:
    with pytest.raises(RenderError, match=r"first upgrade with crds\.keep=true, then with crds\.enabled=false"):
        render({"crds.enabled": False, "crds.keep": False})


# --- what is refused


@pytest.mark.parametrize(
    ("value", "given", "message"),
    [
        ("replicas", 2, "at '': additional properties 'replicas' not allowed"),
        ("image.tagg", "1", "at '/image': additional properties 'tagg' not allowed"),
        ("image.tag", 1.1, "at '/image/tag': got number, want string"),
        ("image.tag", None, "at '/image': missing property 'tag'"),
        ("image", None, "at '': missing property 'image'"),
        ("image.repository", "", "at '/image/repository': '' does not match pattern"),
        ("image.digest", "sha256:abc", "at '/image/digest': 'sha256:abc' does not match pattern"),
        (
            "image.pullPolicy",
            "Sometimes",
            "at '/image/pullPolicy': value must be one of 'IfNotPresent', 'Always', 'Never'",
        ),
        ("imagePullSecrets", ["registry"], "at '/imagePullSecrets/0': got string, want object"),
        ("replicaCount", "2", "at '/replicaCount': got string, want integer"),
        ("replicaCount", -1, "at '/replicaCount': minimum: got -1, want 0"),
        ("metrics.service.port", 80, "at '/metrics/service/port': minimum: got 80, want 1,024"),
        ("watchNamespaces", "search", "at '/watchNamespaces': got string, want null or array"),
        ("watchNamespaces", ["A"], "at '/watchNamespaces/0': 'A' does not match pattern"),
        ("watchNamespaces", ["a", "a"], "at '/watchNamespaces': items at 0 and 1 are equal"),
        ("logging.level", "debug", "at '/logging/level': value must be one of 'Debug', 'Info', 'Warning', 'Error'"),
        ("crds.keep", "yes", "at '/crds/keep': got string, want boolean"),
        (
            "disruptionBudget.maxUnavailable",
            "some",
            "at '/disruptionBudget/maxUnavailable': 'some' does not match pattern",
        ),
        ("podLabels", {"a": 1}, "at '/podLabels/a': got number, want string"),
        ("networkPolicy.apiServerPorts", [], "at '/networkPolicy/apiServerPorts': minItems: got 0, want 1"),
        ("networkPolicy.allowFrom", [{}], "at '/networkPolicy/allowFrom/0': minProperties: got 0, want 1"),
    ],
)
def test_bad_values_are_refused_where_they_stand(value: str, given: Any, message: str) -> None:
    with pytest.raises(RenderError) as refused:
        render({value: given})
    assert message in str(refused.value)


def test_a_parent_chart_may_pass_its_own_keys() -> None:
    assert render({"global": {"region": "x"}, "enabled": True}).deployment


def test_the_schema_knows_exactly_the_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def leaves(node: dict[str, Any], prefix: str = "") -> set[str]:
        assert node["additionalProperties"] is False, prefix
        found = set()
        for key, child in node["properties"].items():
            path = f"{prefix}{key}"
            found |= leaves(child, f"{path}.") if path in groups else {path}
        return found

    values = read((CHART / "values.yaml").read_text())
    groups = {value.path for value in values if value.group}
    assert leaves(schema) == {value.path for value in values if not value.group} | {"global", "enabled"}


# --- documentation


def test_readme_and_schema_carry_the_comments() -> None:
    for path, text in wanted().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make generate`"


def test_a_value_without_a_comment_or_schema_is_refused() -> None:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    with pytest.raises(ValuesError, match=r"a has no comment in values\.yaml"):
        describe(schema, read("a: 1"))
    with pytest.raises(ValuesError, match=r"b is in values\.yaml and not in values\.schema\.json"):
        describe(schema, read("# B.\nb: 1"))
    with pytest.raises(ValuesError, match="must hold these two lines"):
        readme_with("no marks", [])


def test_comments_are_read_as_they_stand() -> None:
    source = "# One,\n# two.\na: [1]\n\n# Not a's.\n\nb:\n  # Inner | pipe.\n  c: {}\n# A default.\nd:\n  e: 1\n"
    found = {value.path: (value.description, value.default, value.group) for value in read(source)}
    assert found == {
        "a": ("One, two.", [1], False),
        "b": ("", {"c": {}}, True),
        "b.c": ("Inner | pipe.", {}, False),
        "d": ("A default.", {"e": 1}, False),
    }
    assert "| `b.c` | `{}` | Inner \\| pipe. |" in readme_with((CHART / "README.md").read_text(), read(source))


def test_the_chart_has_the_version_of_the_distributions() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for distribution in ("operator", "runtime"):
        project = tomllib.loads((REPOSITORY / distribution / "pyproject.toml").read_text())["project"]
        assert chart["version"] == chart["appVersion"] == project["version"]
