"""What the rest of the spec does to the children: field, spec, where to look, what is there."""

from __future__ import annotations

import json

from tests.operator.render.rendered import Effect, plus

FINGERPRINT = "sha256:" + "a" * 64
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
PEER = {"podSelector": {"matchLabels": {"app": "search"}}}
METRIC = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}

WORKLOAD_EFFECTS: list[Effect] = [
    (
        "accelerator.type",
        plus(accelerator={"type": "None"}),
        lambda it: (it.runtime.get("resources"), "shm" in it.volumes, it.env["EMBEDDING_DEVICE"]),
        (None, False, "Cpu"),
    ),
    *(
        (
            f"accelerator.extendedResource.{field}",
            plus(accelerator={"extendedResource": {"name": "nvidia.com/mig-1g.10gb", "count": 2}}),
            lambda it: (it.runtime["resources"], it.env["EMBEDDING_DEVICE"]),
            ({"limits": {"nvidia.com/mig-1g.10gb": "2"}, "requests": {"nvidia.com/mig-1g.10gb": "2"}}, "Cuda"),
        )
        for field in ("name", "count")
    ),
    (
        "accelerator.resourceClaimTemplateName",
        plus(accelerator={"type": "ResourceClaim", "resourceClaimTemplateName": "one-gpu"}),
        lambda it: (it.pod["resourceClaims"], it.runtime["resources"]),
        (
            [{"name": "accelerator", "resourceClaimTemplateName": "one-gpu"}],
            {"claims": [{"name": "accelerator"}]},
        ),
    ),
    (
        "resources.limits",
        plus(resources={"limits": {"memory": "1024Mi"}}),
        lambda it: it.runtime["resources"]["limits"],
        {"memory": "1Gi", "nvidia.com/gpu": "1"},
    ),
    (
        "resources.requests",
        plus(resources={"requests": {"cpu": "0.5"}}),
        lambda it: it.runtime["resources"]["requests"],
        {"cpu": "500m", "nvidia.com/gpu": "1"},
    ),
    (
        "autoscaling.minReplicas",
        plus(autoscaling={"minReplicas": 2}),
        lambda it: it.spec("HorizontalPodAutoscaler")["minReplicas"],
        2,
    ),
    (
        "autoscaling.maxReplicas",
        plus(autoscaling={"maxReplicas": 9}),
        lambda it: it.spec("HorizontalPodAutoscaler")["maxReplicas"],
        9,
    ),
    (
        "autoscaling.targetUtilizationPercent",
        plus(autoscaling={"targetUtilizationPercent": 55}),
        lambda it: it.spec("HorizontalPodAutoscaler")["metrics"],
        [
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "embedding_utilization"},
                    "target": {"type": "AverageValue", "averageValue": "550m"},
                },
            }
        ],
    ),
    (
        "autoscaling.metrics",
        plus(autoscaling={"metrics": [METRIC]}),
        lambda it: it.spec("HorizontalPodAutoscaler")["metrics"],
        [METRIC],
    ),
    (
        "autoscaling.behavior",
        plus(autoscaling={"behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}}),
        lambda it: it.spec("HorizontalPodAutoscaler")["behavior"],
        {"scaleDown": {"stabilizationWindowSeconds": 1}},
    ),
    ("service.type", plus(service={"type": "NodePort"}), lambda it: it.spec("Service")["type"], "NodePort"),
    (
        "service.port",
        plus(service={"port": 80}),
        lambda it: it.spec("Service")["ports"],
        [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    ),
    (
        "service.labels",
        plus(service={"labels": {"a": "b", "embedding-operator.io/service": "other"}}),
        lambda it: [
            it.children["Service"]["metadata"]["labels"][key] for key in ("a", "embedding-operator.io/service")
        ],
        ["b", "minilm"],
    ),
    (
        "service.annotations",
        plus(service={"annotations": {"a": "b"}}),
        lambda it: it.children["Service"]["metadata"]["annotations"],
        {"a": "b"},
    ),
    (
        "authentication.apiKeysSecretRef.name",
        plus(authentication={"apiKeysSecretRef": {"name": "k"}}),
        lambda it: (it.volumes["api-keys"], it.mounts["api-keys"], it.env["EMBEDDING_API_KEYS_DIR"]),
        ({"secret": {"secretName": "k"}}, "/etc/embedding/api-keys", "/etc/embedding/api-keys"),
    ),
    (
        "scheduling.nodeSelector",
        plus(scheduling={"nodeSelector": {"a": "b"}}),
        lambda it: it.pod["nodeSelector"],
        {"a": "b"},
    ),
    (
        "scheduling.tolerations",
        plus(
            scheduling={
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]
            }
        ),
        lambda it: it.pod["tolerations"],
        [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    ),
    ("scheduling.affinity", plus(scheduling={"affinity": AFFINITY}), lambda it: it.pod["affinity"], AFFINITY),
    (
        "scheduling.topologySpreadConstraints",
        plus(scheduling={"topologySpreadConstraints": [SPREAD]}),
        lambda it: it.pod["topologySpreadConstraints"],
        [{**SPREAD, "labelSelector": {"matchLabels": {"embedding-operator.io/service": "minilm"}}}],
    ),
    *(
        (f"scheduling.{field}", plus(scheduling={field: "x"}), lambda it, field=field: it.pod[field], "x")
        for field in ("priorityClassName", "runtimeClassName", "schedulerName")
    ),
    (
        "podTemplate.labels",
        plus(podTemplate={"labels": {"a": "b"}}),
        lambda it: it.template["metadata"]["labels"]["a"],
        "b",
    ),
    (
        "podTemplate.annotations",
        plus(podTemplate={"annotations": {"a": "b"}}),
        lambda it: it.template["metadata"]["annotations"],
        {"a": "b"},
    ),
    (
        "podTemplate.volumes",
        plus(podTemplate={"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Ki"}}]}),
        lambda it: it.volumes["v"],
        {"emptyDir": {"sizeLimit": "1Mi"}},
    ),
    (
        "podTemplate.volumeMounts",
        plus(
            podTemplate={"volumeMounts": [{"name": "v", "mountPath": "/v"}], "volumes": [{"name": "v", "emptyDir": {}}]}
        ),
        lambda it: it.mounts["v"],
        "/v",
    ),
    (
        "podTemplate.initContainers",
        plus(podTemplate={"initContainers": [{"name": "i", "image": "x"}]}),
        lambda it: [container["name"] for container in it.pod["initContainers"]],
        ["i"],
    ),
    (
        "podTemplate.sidecars",
        plus(podTemplate={"sidecars": [{"name": "s", "image": "x"}]}),
        lambda it: [container["name"] for container in it.pod["containers"]],
        ["runtime", "s"],
    ),
    (
        "disruptionBudget.enabled",
        plus(disruptionBudget={"enabled": False}),
        lambda it: "PodDisruptionBudget" in it.children,
        False,
    ),
    (
        "disruptionBudget.maxUnavailable",
        plus(disruptionBudget={"maxUnavailable": "25%"}),
        lambda it: it.spec("PodDisruptionBudget")["maxUnavailable"],
        "25%",
    ),
    (
        "networkPolicy.enabled",
        plus(networkPolicy={"enabled": True}),
        lambda it: it.spec("NetworkPolicy")["ingress"],
        [
            {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "embedding-system"}},
                        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "embedding-operator"}},
                    }
                ],
                "ports": [{"port": "http", "protocol": "TCP"}],
            }
        ],
    ),
    (
        "networkPolicy.allowFrom",
        plus(networkPolicy={"enabled": True, "allowFrom": [PEER]}),
        lambda it: it.spec("NetworkPolicy")["ingress"][0]["from"][0],
        PEER,
    ),
    (
        "monitoring.serviceMonitor.enabled",
        plus(monitoring={"serviceMonitor": {"enabled": True}}),
        lambda it: it.spec("ServiceMonitor")["endpoints"],
        [{"port": "http", "path": "/v1/metrics", "interval": "30s"}],
    ),
    (
        "monitoring.serviceMonitor.interval",
        plus(monitoring={"serviceMonitor": {"enabled": True, "interval": "1m"}}),
        lambda it: it.spec("ServiceMonitor")["endpoints"][0]["interval"],
        "1m",
    ),
    (
        "monitoring.alerts.enabled",
        plus(monitoring={"alerts": {"enabled": True}}),
        lambda it: len(it.spec("PrometheusRule")["groups"][0]["rules"]) > 4,
        True,
    ),
    (
        "monitoring.dashboard.enabled",
        plus(monitoring={"dashboard": {"enabled": True}}),
        lambda it: [json.loads(text)["title"] for text in it.children["ConfigMap"]["data"].values()],
        ["Embeddings / search / minilm"],
    ),
    *(
        (
            f"monitoring.{field}.labels",
            plus(monitoring={field: {"enabled": True, "labels": {"release": "p"}}}),
            lambda it, kind=kind: it.children[kind]["metadata"]["labels"]["release"],
            "p",
        )
        for field, kind in (
            ("serviceMonitor", "ServiceMonitor"),
            ("alerts", "PrometheusRule"),
            ("dashboard", "ConfigMap"),
        )
    ),
    (
        "vectorSpace.expectedFingerprint",
        plus(vectorSpace={"expectedFingerprint": FINGERPRINT}),
        lambda it: it.env["EMBEDDING_EXPECTED_FINGERPRINT"],
        FINGERPRINT,
    ),
    (
        "suspend",
        plus(suspend=True, monitoring={"alerts": {"enabled": True}}),
        lambda it: "PrometheusRule" in it.children,
        False,
    ),
]
