"""The operator's rights, to the verb."""

import pytest

from tests.chart.helpers import ALL_ON, FULLNAME, NAMESPACE, REPOSITORY, Object, Rendered, render, rights

READ = ("get", "list", "watch")
OWN = (*READ, "create", "patch", "delete")
KEPT = {("apps", "deployments"), ("", "services")}
"""Children that every service has for as long as it lives: they are never deleted but by their owner reference."""
OPTIONAL = {
    ("autoscaling", "horizontalpodautoscalers"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
}
BUDGET = {
    *((group, resource, verb) for group, resource in KEPT for verb in OWN if verb != "delete"),
    *((group, resource, verb) for group, resource in OPTIONAL for verb in OWN),
    *(("embedding-operator.io", "embeddingservices", verb) for verb in READ),
    ("embedding-operator.io", "embeddingservices/status", "patch"),
    *(("", "pods", verb) for verb in ("list", "watch")),
    ("", "events", "list"),
    ("events.k8s.io", "events", "create"),
}
MONITORING = {
    *(("monitoring.coreos.com", "servicemonitors", verb) for verb in OWN),
    *(("monitoring.coreos.com", "prometheusrules", verb) for verb in OWN),
    *(("", "configmaps", verb) for verb in OWN),
}
METRICS_API = {("", "configmaps", verb) for verb in READ}
"""What Kubernetes' own Role extension-apiserver-authentication-reader grants, on one ConfigMap."""
SUBJECT = {"kind": "ServiceAccount", "name": FULLNAME, "namespace": NAMESPACE}


def bound(result: Rendered, binding: str, role: str, namespace: str | None = None) -> set[tuple[str, str, str]]:
    """The rights that a binding gives the operator's ServiceAccount; checks that it binds nobody else."""
    (found,) = [
        item for item in result.all(binding) if item["metadata"].get("namespace") == namespace and _is_main(item)
    ]
    assert found["subjects"] == [SUBJECT]
    assert found["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": FULLNAME}
    (target,) = [item for item in result.all(role) if item["metadata"].get("namespace") == namespace and _is_main(item)]
    return rights(target)


def _is_main(item: Object) -> bool:
    return bool(item["metadata"]["name"] == FULLNAME)


def test_cluster_wide_rights_are_exactly_the_budget() -> None:
    assert bound(render(), "ClusterRoleBinding", "ClusterRole") == BUDGET


def test_namespaced_rights_are_the_same_and_only_there() -> None:
    result = render({"watchNamespaces": ["search", "recommendations"]})
    assert not result.all("ClusterRole")
    assert not result.all("ClusterRoleBinding")
    for namespace in ("search", "recommendations"):
        assert bound(result, "RoleBinding", "Role", namespace) == BUDGET
    assert {item["metadata"]["namespace"] for item in result.all("Role")} == {"search", "recommendations", NAMESPACE}
    assert result.environment["EMBEDDING_OPERATOR_WATCH_NAMESPACES"] == "recommendations,search"


def test_namespaced_in_its_own_namespace() -> None:
    result = render({"watchNamespaces": [NAMESPACE]})
    assert bound(result, "RoleBinding", "Role", NAMESPACE) == BUDGET
    assert len(result.all("Role")) == 2


@pytest.mark.parametrize("namespaces", [[], ["search"]])
def test_monitoring_rights_only_behind_their_switch(namespaces: list[str]) -> None:
    result = render({"monitoring.enabled": True, "watchNamespaces": namespaces})
    kinds = ("RoleBinding", "Role", "search") if namespaces else ("ClusterRoleBinding", "ClusterRole", None)
    assert bound(result, *kinds) == BUDGET | MONITORING


def test_leader_election_touches_one_lease_in_its_own_namespace() -> None:
    result = render()
    role = result.one("Role", f"{FULLNAME}-leader-election")
    assert role["metadata"]["namespace"] == NAMESPACE
    assert role["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [result.environment["EMBEDDING_OPERATOR_LEASE_NAME"]],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]
    binding = result.one("RoleBinding")
    assert binding["subjects"] == [SUBJECT]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_people_see_and_edit_through_the_clusters_own_roles() -> None:
    result = render()
    view, edit = result.one("ClusterRole", f"{FULLNAME}-view"), result.one("ClusterRole", f"{FULLNAME}-edit")
    assert _aggregated_to(view) == ["view", "edit", "admin"]
    assert _aggregated_to(edit) == ["edit", "admin"]
    assert {verb for _, _, verb in rights(view)} == set(READ)
    assert rights(edit) == {
        *(("embedding-operator.io", "embeddingservices", verb) for verb in ("create", "update", "patch", "delete")),
        ("embedding-operator.io", "embeddingservices", "deletecollection"),
        ("embedding-operator.io", "embeddingservices/scale", "update"),
        ("embedding-operator.io", "embeddingservices/scale", "patch"),
    }
    # They are granted to people by aggregation, never bound to the operator.
    assert {binding["roleRef"]["name"] for binding in result.all("ClusterRoleBinding")} == {FULLNAME}
    assert len(render({"rbac.aggregateClusterRoles": False}).all("ClusterRole")) == 1


def _aggregated_to(role: Object) -> list[str]:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    return [name for name in ("view", "edit", "admin") if role["metadata"]["labels"].get(prefix + name) == "true"]


def test_nothing_is_granted_when_someone_else_does() -> None:
    result = render({"rbac.create": False})
    kinds = {item["kind"] for item in result.objects}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_only_the_operators_pods_get_a_token() -> None:
    result = render()
    assert result.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert result.pod_spec["automountServiceAccountToken"] is True
    assert result.pod_spec["serviceAccountName"] == result.one("ServiceAccount")["metadata"]["name"]


def test_an_existing_service_account() -> None:
    result = render({"serviceAccount.create": False, "serviceAccount.name": "mine"})
    assert not result.all("ServiceAccount")
    assert result.pod_spec["serviceAccountName"] == "mine"
    assert result.one("ClusterRoleBinding")["subjects"][0]["name"] == "mine"
    assert render({"serviceAccount.create": False}).pod_spec["serviceAccountName"] == "default"


def test_the_created_service_account_keeps_its_given_name() -> None:
    result = render({}, ALL_ON)
    assert result.one("ServiceAccount")["metadata"]["name"] == "vector-operator-account"
    binding = result.one("ClusterRoleBinding", "vector-operator")
    assert binding["subjects"][0]["name"] == "vector-operator-account"


def test_the_documented_rights_are_these() -> None:
    """docs/security.md lists every rule; the table is read back and compared."""
    lines = (REPOSITORY / "docs" / "security.md").read_text().splitlines()
    documented: dict[str, set[tuple[str, str, str]]] = {"always": set(), "monitoring": set(), "metricsApi": set()}
    for line in lines:
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[3] in documented:
            group, resources, verbs = cells[0], cells[1], cells[2]
            documented[cells[3]] |= {
                ("" if group == "core" else group, resource.strip(" `"), verb.strip())
                for resource in resources.split(",")
                for verb in verbs.split(",")
            }
    assert documented == {"always": BUDGET, "monitoring": MONITORING, "metricsApi": METRICS_API}
