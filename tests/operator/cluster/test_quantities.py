"""Our canonical form against the API server's own."""

from __future__ import annotations

from typing import Any

import pytest
from embedding_operator.api.quantity import canonical
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.operator.api.test_quantity import PAIRS

pytestmark = pytest.mark.cluster

written = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,4})?(n|u|m|k|M|G|T|Ki|Mi|Gi|e-?[0-9])?", fullmatch=True)


def stored(api: Any, namespace: str, quantities: list[str]) -> list[str]:
    """What the API server makes of quantities in volumes' size limits."""
    volumes = [{"name": f"v{index}", "emptyDir": {"sizeLimit": text}} for index, text in enumerate(quantities)]
    template = {
        "metadata": {"labels": {"app": "quantities"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes},
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quantities", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "quantities"}}, "template": template},
    }
    deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
    answer = deployments.create(body, namespace=namespace, dry_run="All").to_dict()
    return [volume["emptyDir"]["sizeLimit"] for volume in answer["spec"]["template"]["spec"]["volumes"]]


def check(api: Any, namespace: str, quantities: list[str]) -> None:
    """What we send is stored as sent, and is what the API server makes of the written form.

    It keeps some written forms, such as 01 and 1500e0, although it would write them otherwise itself; those come back
    as written or in our form.
    """
    sent = [canonical(text) for text in quantities]
    assert stored(api, namespace, sent) == sent
    for written, ours, theirs in zip(quantities, sent, stored(api, namespace, quantities), strict=True):
        assert theirs in (ours, written)


def test_pairs_are_what_the_api_server_stores(api: Any, namespace: str) -> None:
    check(api, namespace, [pair[0] for pair in PAIRS if not pair[0].startswith("-")])


@given(quantities=st.lists(written, min_size=20, max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_canonical_agrees_with_the_api_server(api: Any, namespace: str, quantities: list[str]) -> None:
    check(api, namespace, quantities)
