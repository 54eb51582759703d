"""The NetworkPolicy."""

from __future__ import annotations

from typing import Any

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import PORT_NAME
from embedding_operator.api.kinds import NETWORK_POLICIES

from .borrowed import NETWORKING, normalised
from .context import Child, RenderContext
from .metadata import child, selector
from .ports import extra_ports

PEER = NETWORKING + "NetworkPolicyPeer"


def network_policy(service: EmbeddingService, context: RenderContext) -> Child:
    """Admits the peers of the spec and the operator to the ports of the Service.

    The kubelet's probes need no rule: traffic from the node of a Pod to the Pod is always admitted
    (https://kubernetes.io/docs/concepts/services-networking/network-policies/).
    """
    operator: dict[str, Any] = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.operator_namespace}},
        "podSelector": {"matchLabels": dict(context.operator_pod_labels)} if context.operator_pod_labels else {},
    }
    return child(
        service,
        NETWORK_POLICIES,
        spec={
            "podSelector": {"matchLabels": selector(service)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [*(normalised(peer, PEER) for peer in service.spec.network_policy.allow_from), operator],
                    "ports": [{"port": name, "protocol": "TCP"} for name in (PORT_NAME, *extra_ports(service))],
                }
            ],
        },
    )
