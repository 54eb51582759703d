"""The command lines of the control plane's programs. Pure: paths and addresses in, argument lists out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devcluster.control.addresses import Addresses
from devcluster.control.certificates import KeyPair
from devcluster.settings import ClusterSettings

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""

_CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "resourcequota-controller",
    "resourceclaim-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "clusterrole-aggregation-controller",
    "ttl-after-finished-controller",
)
"""What runs in kube-controller-manager: what Pods and autoscaling need, but not the EndpointSlice controllers,
which refuse the loopback addresses that Pods have here; `devcluster.network.slices` writes slices in their place."""


@dataclass(frozen=True)
class Keys:
    """Where the cluster's certificates and keys lie."""

    authority: Path
    front_proxy_authority: Path
    api_server: KeyPair
    front_proxy: KeyPair
    kubelet_client: KeyPair
    service_accounts: KeyPair


@dataclass(frozen=True)
class Layout:
    """Everything the command lines depend on."""

    settings: ClusterSettings
    addresses: Addresses
    directory: Path
    binaries: dict[str, Path]
    keys: Keys
    ports: dict[str, int]

    @property
    def api_server(self) -> str:
        """The API server's URL."""
        return f"https://{self.addresses.control_plane}:{self.ports['kube-apiserver']}"

    @property
    def etcd(self) -> str:
        """etcd's client URL."""
        return f"http://{self.addresses.control_plane}:{self.ports['etcd']}"

    @property
    def audit_log(self) -> Path:
        """Where the API server writes one line per request."""
        return self.directory / "logs" / "audit.log"


PREFERRED_PORTS = {
    "etcd": 2379,
    "etcd-peer": 2380,
    "kube-apiserver": 6443,
    "kube-controller-manager": 10257,
    "kube-scheduler": 10259,
}


def etcd(layout: Layout) -> list[str]:
    """etcd without fsync: the state is thrown away with the cluster."""
    peer = f"http://{layout.addresses.control_plane}:{layout.ports['etcd-peer']}"
    return [
        str(layout.binaries["etcd"]),
        "--name=devcluster",
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={layout.etcd}",
        f"--advertise-client-urls={layout.etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=devcluster={peer}",
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]


def api_server(layout: Layout) -> list[str]:
    """kube-apiserver with RBAC, service-account tokens, the aggregation layer and an audit log."""
    keys, address = layout.keys, layout.addresses.control_plane
    return [
        str(layout.binaries["kube-apiserver"]),
        f"--etcd-servers={layout.etcd}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={layout.ports['kube-apiserver']}",
        f"--tls-cert-file={keys.api_server.certificate}",
        f"--tls-private-key-file={keys.api_server.key}",
        f"--client-ca-file={keys.authority}",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={layout.addresses.services}",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={keys.service_accounts.certificate}",
        f"--service-account-signing-key-file={keys.service_accounts.key}",
        f"--requestheader-client-ca-file={keys.front_proxy_authority}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys.front_proxy.certificate}",
        f"--proxy-client-key-file={keys.front_proxy.key}",
        f"--kubelet-client-certificate={keys.kubelet_client.certificate}",
        f"--kubelet-client-key={keys.kubelet_client.key}",
        f"--kubelet-certificate-authority={keys.authority}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={layout.directory / 'audit-policy.yaml'}",
        f"--audit-log-path={layout.audit_log}",
        "--profiling=false",
    ]


def controller_manager(layout: Layout, kubeconfig: Path) -> list[str]:
    """kube-controller-manager, with an autoscaler and a node grace period that tests can wait for."""
    settings, grace = layout.settings, layout.settings.node_grace
    return [
        str(layout.binaries["kube-controller-manager"]),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        f"--bind-address={layout.addresses.control_plane}",
        f"--secure-port={layout.ports['kube-controller-manager']}",
        f"--controllers={','.join(_CONTROLLERS)}",
        f"--service-account-private-key-file={layout.keys.service_accounts.key}",
        f"--root-ca-file={layout.keys.authority}",
        f"--horizontal-pod-autoscaler-sync-period={settings.autoscaler_period}s",
        f"--horizontal-pod-autoscaler-downscale-stabilization={settings.autoscaler_downscale_stabilization}s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
        f"--node-monitor-period={min(grace / 4, 5)}s",
        f"--node-monitor-grace-period={grace}s",
        f"--node-startup-grace-period={max(grace, 60)}s",
        "--profiling=false",
        *_pace(settings),
    ]


def scheduler(layout: Layout, kubeconfig: Path) -> list[str]:
    """kube-scheduler as it comes."""
    return [
        str(layout.binaries["kube-scheduler"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        f"--bind-address={layout.addresses.control_plane}",
        f"--secure-port={layout.ports['kube-scheduler']}",
        "--profiling=false",
        *_pace(layout.settings),
    ]


def _pace(settings: ClusterSettings) -> list[str]:
    pace = settings.controllers_requests_per_second
    return [] if pace is None else [f"--kube-api-qps={pace}", f"--kube-api-burst={2 * pace}"]
