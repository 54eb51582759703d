"""Valid specs of every shape, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

settings.register_profile("embedding-operator", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("embedding-operator")  # a busy machine is no fault of the code

Strategy = st.SearchStrategy

names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x7f", min_codepoint=32) | st.just("\n"), max_size=8
)
label_keys = st.from_regex(r"(example\.com/)?[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
labels = st.dictionaries(label_keys, names, max_size=3)
quantities = st.from_regex(r"[1-9][0-9]{0,5}(\.[0-9]{1,3})?(m|k|Ki|Mi|Gi)?", fullmatch=True)
percent = st.integers(1, 100)


def optional(**fields: Strategy[Any]) -> Strategy[dict[str, Any]]:
    """An object of any subset of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


claims = st.fixed_dictionaries({"claimName": names})
caches = st.one_of(
    st.fixed_dictionaries({"persistentVolumeClaim": claims}),
    st.fixed_dictionaries({"emptyDir": optional(sizeLimit=quantities)}),
)
ids = st.from_regex(r"[a-z][a-z0-9]{0,8}(/[a-z0-9][a-z0-9.-]{0,7})?", fullmatch=True)
sources = st.one_of(
    st.fixed_dictionaries(
        {
            "huggingFace": st.fixed_dictionaries(
                {"repository": ids},
                optional={
                    "revision": st.sampled_from(["main", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"]),
                    "tokenSecretRef": st.fixed_dictionaries({"name": names, "key": names}),
                },
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "persistentVolumeClaim": st.fixed_dictionaries(
                {"claimName": names}, optional={"path": st.sampled_from(["a", "a/b"])}
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "image": st.fixed_dictionaries(
                {"reference": ids}, optional={"pullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"])}
            )
        }
    ),
)
settings = optional(
    id=ids,
    aliases=st.lists(ids, max_size=3, unique=True),
    cache=caches,
    maxInputTokens=st.integers(1, 8192),
    pooling=st.sampled_from(["Mean", "Cls", "LastToken"]),
    prompts=optional(query=texts, passage=texts),
)
models = st.builds(lambda one, two: {**one, **two}, sources, settings)
images = st.fixed_dictionaries(
    {"repository": ids, "tag": names},
    optional={
        "pullPolicy": st.sampled_from(["Always", "IfNotPresent"]),
        "pullSecrets": st.lists(st.fixed_dictionaries({"name": names}), max_size=2, unique_by=lambda it: it["name"]),
    },
)
shared = {
    "startupTimeoutSeconds": st.integers(30, 86400),
    "drainTimeoutSeconds": st.integers(0, 3600),
    "env": st.lists(
        st.fixed_dictionaries({"name": st.from_regex(r"[A-Z]{1,4}", fullmatch=True), "value": texts}),
        max_size=3,
        unique_by=lambda it: it["name"],
    ),
    "envFrom": st.lists(st.fixed_dictionaries({"secretRef": st.fixed_dictionaries({"name": names})}), max_size=2),
    "serviceAccountName": names,
    "tls": st.fixed_dictionaries({"secretName": names}),
}
bundled = optional(
    bundled=optional(
        image=images,
        upgradePolicy=st.sampled_from(["OnSpecChange", "WithOperator"]),
        precision=st.sampled_from(["Auto", "Float32", "BFloat16", "Float16", "Int8"]),
        batching=optional(
            maxWaitMilliseconds=st.integers(0, 100),
            maxBatchTokens=st.integers(1, 65536),
            maxBatchItems=st.integers(1, 512),
            maxQueuedTokens=st.integers(1, 10**6),
        ),
        requestTimeoutSeconds=st.integers(1, 3600),
    ),
    **shared,
)
nim = st.fixed_dictionaries(
    {
        "type": st.just("NIM"),
        "nim": st.fixed_dictionaries(
            {"image": images},
            optional={
                "ngcSecretRef": st.fixed_dictionaries({"name": names}),
                "profile": names,
                "grpcPort": st.integers(8001, 8499),
                "metricsPort": st.integers(8500, 8999),
                "sharedMemorySizeLimit": quantities,
            },
        ),
    },
    optional=shared,
)
accelerators = st.one_of(
    st.just({"type": "None"}),
    optional(
        extendedResource=optional(
            name=st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]), count=st.integers(1, 8)
        )
    ),
    st.fixed_dictionaries({"type": st.just("ResourceClaim"), "resourceClaimTemplateName": names}),
)
resource_maps = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), quantities, max_size=3)
probes = optional(
    httpGet=st.fixed_dictionaries(
        {"port": st.integers(1, 65535)}, optional={"scheme": st.sampled_from(["", "HTTP"]), "host": st.just("")}
    ),
    initialDelaySeconds=st.integers(0, 3),
    timeoutSeconds=st.integers(0, 3),
    periodSeconds=st.integers(0, 3),
).filter(lambda probe: "httpGet" in probe)
within_limits = st.builds(
    lambda limits, named: {"limits": limits, "requests": {name: limits[name] for name in named if name in limits}},
    resource_maps,
    st.sets(st.sampled_from(["cpu", "memory"])),
)
containers = st.lists(
    st.fixed_dictionaries(
        {"name": names.filter(lambda name: name != "runtime"), "image": ids},
        optional={
            "securityContext": optional(readOnlyRootFilesystem=st.booleans(), capabilities=st.just({"drop": ["ALL"]})),
            "resources": optional(limits=resource_maps),
            "stdin": st.booleans(),
            "tty": st.booleans(),
            "workingDir": st.sampled_from(["", "/x"]),
            "imagePullPolicy": st.sampled_from(["", "Always"]),
            "env": st.lists(
                st.fixed_dictionaries({"name": st.just("A"), "value": st.sampled_from(["", "x"])}), max_size=1
            ),
            "command": st.lists(st.just("x"), max_size=1),
        },
    ),
    max_size=2,
    unique_by=lambda it: it["name"],
)


def _distinct(additions: dict[str, Any]) -> bool:
    names_of = [{it["name"] for it in additions.get(field, ())} for field in ("initContainers", "sidecars")]
    return not names_of[0] & names_of[1]


sidecars = st.lists(
    st.fixed_dictionaries(
        {"name": names.filter(lambda name: name != "runtime"), "image": ids},
        optional={
            "readinessProbe": probes,
            "volumeMounts": st.just([{"name": "tmp", "mountPath": "/x", "readOnly": False, "subPath": ""}]),
        },
    ),
    max_size=1,
)
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "value": "", "effect": ""}
RESERVED = {"accelerator", "api-keys", "cache", "model", "shm", "tls", "tmp"}
common = {
    "accelerator": accelerators,
    "resources": st.one_of(optional(limits=resource_maps), optional(requests=resource_maps), within_limits),
    "replicas": st.integers(0, 10),
    "rollout": optional(strategy=st.sampled_from(["Auto", "Surge", "MaxUnavailable", "Recreate"])),
    "service": optional(
        type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
        port=st.one_of(st.integers(1, 8000), st.integers(9000, 65535)),
        labels=labels,
        annotations=labels,
    ),
    "scheduling": optional(
        nodeSelector=labels,
        tolerations=st.lists(
            st.just({"key": "nvidia.com/gpu", "operator": "Exists", "value": "", "effect": ""}), max_size=1
        ),
        affinity=st.just({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}),
        topologySpreadConstraints=st.lists(
            st.just({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}), max_size=1
        ),
        priorityClassName=names,
        runtimeClassName=names,
        schedulerName=names,
    ),
    "podTemplate": optional(
        labels=labels,
        annotations=labels,
        volumes=st.lists(
            st.fixed_dictionaries(
                {
                    "name": names.filter(lambda name: name not in RESERVED),
                    "emptyDir": optional(sizeLimit=quantities),
                }
            ),
            max_size=2,
            unique_by=lambda it: it["name"],
        ),
        initContainers=containers,
        sidecars=sidecars,
    ).filter(_distinct),
    "disruptionBudget": optional(enabled=st.booleans(), maxUnavailable=st.one_of(st.integers(0, 5), st.just("50%"))),
    "networkPolicy": optional(enabled=st.booleans(), allowFrom=st.lists(st.just({"podSelector": {}}), max_size=1)),
    "monitoring": optional(
        serviceMonitor=optional(enabled=st.booleans(), labels=labels, interval=st.sampled_from(["15s", "1m"])),
        alerts=optional(enabled=st.booleans(), labels=labels),
        dashboard=optional(enabled=st.booleans()),
    ),
    "suspend": st.booleans(),
}
autoscaling = st.builds(
    lambda low, extra, percent: {"minReplicas": low, "maxReplicas": low + extra, "targetUtilizationPercent": percent},
    st.integers(1, 5),
    st.integers(0, 5),
    percent,
)
bundled_specs = st.fixed_dictionaries(
    {"model": models},
    optional={
        **common,
        "runtime": bundled,
        "autoscaling": autoscaling,
        "authentication": st.fixed_dictionaries({"apiKeysSecretRef": st.fixed_dictionaries({"name": names})}),
        "vectorSpace": optional(expectedFingerprint=st.just("sha256:" + "a" * 64)),
    },
)
nim_specs = st.fixed_dictionaries(
    {"runtime": nim},
    optional={
        **common,
        "monitoring": optional(serviceMonitor=optional(enabled=st.booleans())),
        "model": optional(id=ids, aliases=st.lists(ids, max_size=2, unique=True), cache=caches),
    },
)
specs = st.one_of(bundled_specs, bundled_specs, nim_specs)
