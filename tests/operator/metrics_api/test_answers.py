"""Requests and documents of the group, and who may ask."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from embedding_operator.metrics_api.answers import (
    Figure,
    MetricRequest,
    Refusal,
    discovery,
    metric_value_list,
    parse_path,
    plausible,
    status,
)
from embedding_operator.metrics_api.front_proxy import FrontProxy, NoFrontProxy, parse

ROOT = "/apis/custom.metrics.k8s.io/v1beta2"
AT = datetime(2026, 11, 20, 12, 0, 5, 999, tzinfo=UTC)


def test_paths_are_read_as_clients_send_them() -> None:
    assert parse_path(ROOT) is None
    assert parse_path(ROOT + "/") is None
    every = MetricRequest("search", None)
    assert parse_path(ROOT + "/namespaces/search/pods/%2A/embedding_utilization") == every
    assert parse_path(ROOT + "/namespaces/search/pods/*/embedding_utilization") == every
    one = MetricRequest("search", "minilm-1")
    assert parse_path(ROOT + "/namespaces/search/pods/minilm-1/embedding_utilization") == one


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/apis",
        "/apis/custom.metrics.k8s.io/v1beta1",
        ROOT + "/namespaces/search/pods/%2A/latency",
        ROOT + "/namespaces/search/pods/%2A",
        ROOT + "/namespaces//pods/%2A/embedding_utilization",
        ROOT + "/namespaces/search/pods/a%2Fb/embedding_utilization/more",
        ROOT + "/namespaces/search/deployments.apps/minilm/embedding_utilization",
        ROOT + "/namespaces/search/metrics/embedding_utilization",
        ROOT + "/nodes/%2A/embedding_utilization",
    ],
)
def test_anything_else_is_not_found(path: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_path(path)
    document = status(refused.value)
    assert (document["kind"], document["status"], document["code"]) == ("Status", "Failure", 404)
    assert document["reason"] == "NotFound"
    assert document["message"]


def test_a_list_of_figures() -> None:
    document = metric_value_list("search", [("minilm-1", Figure(0.7346, AT)), ("minilm-2", Figure(0.0, AT))])
    assert json.loads(json.dumps(document)) == document
    assert (document["kind"], document["apiVersion"]) == ("MetricValueList", "custom.metrics.k8s.io/v1beta2")
    first, second = document["items"]
    assert first == {
        "describedObject": {"kind": "Pod", "namespace": "search", "name": "minilm-1", "apiVersion": "v1"},
        "metric": {"name": "embedding_utilization", "selector": None},
        "timestamp": "2026-11-20T12:00:05Z",
        "windowSeconds": 10,
        "value": "735m",
    }
    assert second["value"] == "0m"


def test_discovery_names_the_one_metric() -> None:
    (resource,) = discovery()["resources"]
    assert resource["name"] == "pods/embedding_utilization"
    assert resource["namespaced"] is True


def test_implausible_figures_are_not_passed_on() -> None:
    assert plausible(0.0)
    assert plausible(37.5)
    for figure in (math.nan, math.inf, -math.inf, -0.1, 1e9):
        assert not plausible(figure)


# --- the front proxy

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def config_map(**changes: str) -> dict[str, Any]:
    data = {
        "requestheader-client-ca-file": PEM,
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    return {"data": data | {key.replace("_", "-"): value for key, value in changes.items()}}


def test_the_front_proxy_is_what_the_cluster_says() -> None:
    assert parse(config_map()) == FrontProxy(PEM, frozenset({"front-proxy-client"}), ("X-Remote-User",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "does not exist"),
        ({}, "aggregation layer is not configured"),
        (config_map(requestheader_client_ca_file=""), "aggregation layer is not configured"),
        (config_map(requestheader_allowed_names="front-proxy"), "is not JSON"),
        (config_map(requestheader_allowed_names='{"a": 1}'), "no list of names"),
    ],
)
def test_a_cluster_without_one(given: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(NoFrontProxy, match=message):
        parse(given)


@pytest.mark.parametrize(
    ("names", "common_name", "headers", "code"),
    [
        (["front-proxy-client"], "front-proxy-client", {"X-Remote-User": "u"}, None),
        ([], "anything", {"X-Remote-User": "u"}, None),
        (["front-proxy-client"], None, {"X-Remote-User": "u"}, 401),
        ([], None, {"X-Remote-User": "u"}, 401),
        (["front-proxy-client"], "kubelet", {"X-Remote-User": "u"}, 403),
        (["front-proxy-client"], "", {"X-Remote-User": "u"}, 403),
        (["front-proxy-client"], "front-proxy-client", {}, 401),
        (["front-proxy-client"], "front-proxy-client", {"X-Remote-User": ""}, 401),
    ],
)
def test_who_may_ask(names: list[str], common_name: str | None, headers: dict[str, str], code: int | None) -> None:
    proxy = parse(config_map(requestheader_allowed_names=json.dumps(names)))
    if code is None:
        proxy.check(common_name, headers)
        return
    with pytest.raises(Refusal) as refused:
        proxy.check(common_name, headers)
    assert refused.value.code == code
