"""Changes under constant load lose no request, and rollouts find their way where accelerators are scarce."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.cluster.conftest import CHART
from tests.cluster.load import constant_load, summary
from tests.cluster.services import OPERATOR_NAMESPACE, RELEASE, Services, service
from tests.runtime.models.checkpoints import FAMILIES, add_modules, build

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

BERT = next(family for family in FAMILIES if family.name == "bert")
STAND_IN = {"repository": "registry.example/stand-in", "tag": "1"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model so small that requests cost next to nothing."""
    directory = tmp_path_factory.mktemp("models")
    build(directory / "tiny", BERT)
    add_modules(directory / "tiny")
    directory.chmod(0o755)
    return directory


def restart_operators(cluster: Cluster, image: str) -> None:
    """An upgrade of the release: all operator Pods are replaced, and the runtime image they bring along is another."""
    scope = (f"--namespace={OPERATOR_NAMESPACE}", "--reuse-values", "--wait", "--timeout=90s")
    cluster.helm("upgrade", RELEASE, str(CHART), *scope, f"--set=runtime.image.tag={image}")


@pytest.mark.timeout(600)
def test_no_request_is_lost_through_image_config_scale_and_operator_changes(services: Services, tiny: Path) -> None:
    services.claim("models", tiny)

    def serve(**changes: Any) -> dict[str, Any]:
        runtime = {"drainTimeoutSeconds": 20, **changes.pop("runtime", {})}
        model = {
            "id": "tiny",
            "persistentVolumeClaim": {"claimName": "models", "path": "tiny"},
            **changes.pop("model", {}),
        }
        return service(model=model, runtime=runtime, **changes)

    image = {"bundled": {"image": {"repository": "embedding-runtime", "tag": "0.1.0-next"}}}
    small = {"aliases": ["small"]}
    services.apply(serve())
    services.wait_ready()
    url = services.cluster.service_url("minilm", services.namespace)
    told = []
    with constant_load(url, model="tiny") as counts:

        @contextmanager
        def step(what: str) -> Iterator[None]:
            before, began = counts.answered, time.monotonic()
            yield
            told.append(f"{what}: {counts.answered - before} in {time.monotonic() - began:.0f} s")
            print(told[-1], flush=True)
            assert counts.failures == [], what

        with step("image"):
            services.apply(serve(runtime=image))
            services.wait_ready()
        try:
            with step("configuration, and an operator upgrade in the middle of it"):
                services.apply(serve(runtime=image, model=small))
                restart_operators(services.cluster, "9.9.9")
                services.wait_ready()
            with step("scale up, and an operator upgrade in the middle of it"):
                services.apply(serve(runtime=image, model=small, replicas=2))
                restart_operators(services.cluster, "")
                services.wait_ready()
        except BaseException:
            restart_operators(services.cluster, "")
            raise
        with step("scale down"):
            services.apply(serve(runtime=image, model=small, replicas=1))
            services.wait_ready()
            services.wait("one Pod is left", lambda: len(services.pods()) == 1)
        pods = {pod["metadata"]["uid"] for pod in services.pods()}
        with step("restart"):
            services.kubectl("rollout", "restart", "deployment/minilm")
            services.kubectl("rollout", "status", "deployment/minilm", "--timeout=120s", timeout=130)
            services.wait("the old Pod is gone", lambda: len(services.pods()) == 1)
        assert pods.isdisjoint(pod["metadata"]["uid"] for pod in services.pods())
    print(summary(counts), told)
    assert counts.failures == []
    assert counts.answered >= 1000


@contextmanager
def accelerators(cluster: Cluster, name: str, count: int) -> Iterator[str]:
    """A resource of which the cluster's only node has so many."""
    (node,) = cluster.state.nodes
    path = name.replace("/", "~1")

    def patch(operation: str, **value: str) -> None:
        operations = [
            {"op": operation, "path": f"/status/{part}/{path}", **value} for part in ("capacity", "allocatable")
        ]
        cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "--patch", json.dumps(operations))

    patch("add", value=str(count))
    try:
        yield name
    finally:
        patch("remove")


def scarce(resource: str, strategy: str = "Auto", **changes: Any) -> dict[str, Any]:
    """A service that needs one accelerator per Pod; what serves does not matter here."""
    env = [{"name": "ROUND", "value": changes.pop("round", "1")}]
    return service(
        accelerator={"extendedResource": {"name": resource, "count": 1}},
        runtime={"bundled": {"image": STAND_IN}, "env": env, "drainTimeoutSeconds": 0},
        rollout={"strategy": strategy},
        **changes,
    )


def strategy_of(services: Services) -> tuple[str, Any]:
    strategy = services.existing("deployment")["spec"]["strategy"]
    return strategy["type"], (strategy.get("rollingUpdate") or {}).get("maxSurge")


def availability(services: Services) -> bool:
    return services.condition("Available").get("status") != "False"


def test_a_free_accelerator_means_no_downtime(services: Services) -> None:
    with accelerators(services.cluster, f"example.com/{services.namespace}", 2) as resource:
        services.apply(scarce(resource))
        services.wait_ready()
        services.apply(scarce(resource, round="2"))
        ready: list[int] = []

        def done() -> bool:
            ready.append(int(services.existing("deployment")["status"].get("readyReplicas", 0)))
            return services.condition().get("status") == "True"

        services.wait("the rollout is complete", done)
        assert min(ready) >= 1
        assert strategy_of(services) == ("RollingUpdate", 1)


def test_no_free_accelerator_means_no_deadlock(services: Services) -> None:
    with accelerators(services.cluster, f"example.com/{services.namespace}", 1) as resource:
        services.apply(scarce(resource))
        services.wait_ready()
        services.apply(scarce(resource, round="2"))
        services.wait_reason("WaitingForAccelerator")
        assert services.condition("Available")["status"] == "True"
        services.wait("it gives up surging", lambda: strategy_of(services) == ("RollingUpdate", 0), timeout=60)
        services.wait_ready()
        (pod,) = (pod for pod in services.pods() if "deletionTimestamp" not in pod["metadata"])
        assert {"name": "ROUND", "value": "2"} in pod["spec"]["containers"][0]["env"]
        # The next rollout begins with one more again: an accelerator may be free by then.
        services.apply(scarce(resource, round="3"))
        services.wait("it surges again", lambda: strategy_of(services) == ("RollingUpdate", 1))


def test_every_switch_of_strategy_works_on_a_running_service(services: Services) -> None:
    expected = {
        "Surge": ("RollingUpdate", 1),
        "MaxUnavailable": ("RollingUpdate", 0),
        "Recreate": ("Recreate", None),
    }
    with accelerators(services.cluster, f"example.com/{services.namespace}", 2) as resource:
        services.apply(scarce(resource))
        services.wait_ready()
        for asked in ("Surge", "Recreate", "Surge", "MaxUnavailable", "Recreate", "MaxUnavailable", "Surge"):
            services.apply(scarce(resource, asked))
            services.wait(f"the strategy is {asked}", lambda asked=asked: strategy_of(services) == expected[asked])
            services.wait_reason("Applied", kind="Applied")  # the Deployment is changed before the status says so
        # Auto takes a Recreate back at once; how else Pods are replaced it decides when there is something to replace.
        for asked, strategy in (("Recreate", expected["Recreate"]), ("Auto", expected["Surge"])):
            services.apply(scarce(resource, asked))
            services.wait(f"the strategy is {asked}'s", lambda strategy=strategy: strategy_of(services) == strategy)
        services.wait_ready()


def test_kubectl_wait_right_after_an_update_waits_for_that_update(services: Services) -> None:
    def applied(number: int) -> dict[str, Any]:
        env = [{"name": "ROUND", "value": str(number)}]
        return service(runtime={"bundled": {"image": STAND_IN}, "env": env, "drainTimeoutSeconds": 0})

    for number in range(3):
        services.apply(applied(number))
        services.wait_ready()  # `kubectl wait`, without anything between it and the apply
        resource = services.resource()
        assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
        serving = [pod for pod in services.pods() if "deletionTimestamp" not in pod["metadata"]]
        assert [pod["spec"]["containers"][0]["env"][-1]["value"] for pod in serving] == [str(number)]
