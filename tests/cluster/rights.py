"""What a ServiceAccount asked for, by the API server's audit log, held against what its roles grant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Right(NamedTuple):
    """One verb on one resource (`resource/subresource`) of an API group; the core group is empty."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}"


@dataclass(frozen=True)
class Rule:
    """One rule of a Role (in a namespace) or ClusterRole (None: everywhere), and where it stands."""

    rights: frozenset[Right]
    names: frozenset[str]
    """Empty: of all names."""
    namespace: str | None
    role: str

    def allows(self, request: Request) -> bool:
        return (
            request.right in self.rights
            and self.namespace in (None, request.namespace)
            and (not self.names or request.name in self.names)
        )


@dataclass(frozen=True)
class Request:
    """One request about a resource, as the audit log has it."""

    right: Right
    namespace: str | None
    name: str
    refused: bool
    uri: str


def rules_for(account: str, namespace: str, objects: Iterable[Object]) -> list[Rule]:
    """The rules that bindings among these objects give the ServiceAccount."""
    objects = list(objects)
    roles = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): item
        for item in objects
        if item["kind"] in ("Role", "ClusterRole")
    }
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    found = []
    for binding in objects:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding") or subject not in binding["subjects"]:
            continue
        scope = binding["metadata"].get("namespace")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        role = roles.get((kind, scope if kind == "Role" else None, name))
        for rule in (role or {}).get("rules") or ():
            rights = frozenset(
                Right(group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            )
            where = f"{kind} {name}" + (f" in {scope}" if scope else "")
            found.append(Rule(rights, frozenset(rule.get("resourceNames") or ()), scope, where))
    return found


def requests_of(events: Iterable[Object]) -> list[Request]:
    """Requests about resources. A server-side apply that made its object (201) needed `create` as well as `patch`.
    A watch counts when it begins."""
    found = []
    for event in events:
        target = event.get("objectRef")
        if not target or not target.get("resource"):
            continue
        resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
        status = event.get("responseStatus", {}).get("code")
        verbs = [event["verb"], "create"] if event["verb"] == "patch" and status == 201 else [event["verb"]]
        found += [
            Request(
                Right(target.get("apiGroup", ""), resource, verb),
                target.get("namespace"),
                target.get("name", ""),
                (event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid",
                event["requestURI"],
            )
            for verb in verbs
        ]
    return found


def missing(requests: Iterable[Request], rules: Iterable[Rule]) -> list[str]:
    """What was refused, or is not granted by these rules, with the request that needs it."""
    rules = list(rules)
    return sorted(
        {
            f"{request.right} in {request.namespace or 'all namespaces'}: {request.uri.partition('?')[0]}"
            for request in requests
            if request.refused or not any(rule.allows(request) for rule in rules)
        }
    )


def unused(requests: Iterable[Request], rules: Iterable[Rule]) -> list[str]:
    """Verbs that a rule grants and no request used."""
    requests = list(requests)
    left = []
    for rule in rules:
        used = {request.right for request in requests if rule.allows(request)}
        left += [f"{right}, granted by {rule.role}" for right in sorted(rule.rights - used)]
    return left
