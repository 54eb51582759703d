"""What a cluster is made of: nodes, images, speeds."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from devcluster.paths import CLUSTER_NAME


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Frozen):
    """What a container image stands for on this machine: a program that is installed here."""

    command: tuple[str, ...] = Field(min_length=1)
    """The image's ENTRYPOINT; a container's `command` replaces it, its `args` follow it."""
    arguments: tuple[str, ...] = ()
    """The image's CMD; used when the container gives neither `command` nor `args`."""
    environment: dict[str, str] = {}
    """The image's ENV."""
    user: int = Field(default=65532, ge=0)
    """The image's USER: the numeric user that the process sees itself as (under user namespaces)."""
    directory: str = "/"
    """The image's WORKDIR."""
    bind_variable: str | None = None
    """The variable by which the program is told the address to listen on. Pods share this machine's network, so it is
    set to the Pod's own address, whatever the container says."""
    paths: tuple[str, ...] = ()
    """Files and directories of this machine that the program needs and that lie below /tmp or a volume's mount path."""


class ClusterSettings(_Frozen):
    """Everything about a cluster that can be chosen. Durations are in seconds."""

    name: str = Field(default="devcluster", pattern=CLUSTER_NAME)
    nodes: int = Field(default=1, ge=1, le=100)
    gpus_per_node: int = Field(default=4, ge=0)
    gpu_resource: str = "nvidia.com/gpu"
    cpus_per_node: int = Field(default=64, ge=1)
    memory_per_node: str = "256Gi"
    node_labels: dict[str, str] = {}
    images: dict[str, Image] = {}
    """Repository (without tag and digest) to program. A key without a slash matches the last part of any repository."""
    image_volumes: dict[str, str] = {}
    """Image reference, or repository, to the directory of this machine that an `image` volume shows."""
    crash_back_off: float = Field(default=1.0, gt=0)
    """The first wait before a container that crashed again is restarted (a kubelet: 10); doubles up to 30-fold."""
    image_back_off: float = Field(default=1.0, gt=0)
    """The first wait before a failed image pull is tried again (a kubelet: 10); doubled up to 30 times this."""
    node_grace: float = Field(default=20.0, gt=0)
    """How long a node may be silent before it is NotReady (Kubernetes: 50)."""
    endpoint_delay: float = Field(default=0.2, ge=0)
    """How long Services still send new connections to a Pod that is no longer ready or being deleted. Real clusters
    need this long, and longer, until every node has heard of it."""
    autoscaler_period: float = Field(default=1.0, gt=0)
    """How often the HorizontalPodAutoscaler looks (Kubernetes: 15)."""
    autoscaler_downscale_stabilization: float = Field(default=5.0, ge=0)
    """For how long the HorizontalPodAutoscaler remembers higher recommendations (Kubernetes: 300)."""
    controllers_requests_per_second: int | None = Field(default=None, ge=1)
    """How fast the controllers and the scheduler may ask the API server (None: Kubernetes' own 20 and 50)."""
    token_lifetime: int | None = Field(default=None, ge=600)
    """Lifetime asked for in-Pod tokens, instead of what the Pod asks for (usually 3607); they are renewed at 80%."""
    isolate: bool | None = None
    """Run containers in user, mount and PID namespaces. None: when this machine allows it."""


def program_path() -> dict[str, str]:
    """A PATH on which the programs of the virtual environment that runs this come first."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def default_images() -> dict[str, Image]:
    """The product's two images and `python`, all from the virtual environment that runs this."""
    scripts, environment = Path(sys.executable).parent, program_path()
    return {
        "embedding-runtime": Image(
            command=(str(scripts / "embedding-runtime"),), environment=environment, bind_variable="EMBEDDING_HOST"
        ),
        "embedding-operator": Image(
            command=(str(scripts / "embedding-operator"),),
            environment=environment,
            bind_variable="EMBEDDING_OPERATOR_HOST",
        ),
        "python": Image(command=(sys.executable,), environment=environment),
    }
