"""What `spec.model` and `spec.runtime` do to the children: field, spec, where to look, what is there."""

from __future__ import annotations

from tests.operator.helpers import CONTEXT, MINIMAL
from tests.operator.render.rendered import (
    HUB,
    Effect,
    bundled,
    claim,
    image,
    model,
    nim,
    nim_image,
    own_image,
    plus,
)

DIGEST = "sha256:" + "b" * 64

RUNTIME_EFFECTS: list[Effect] = [
    ("model.id", model(id="mine"), lambda it: it.argument("--served-model-name"), "mine"),
    ("model.aliases", model(aliases=["a", "b"]), lambda it: it.env["EMBEDDING_MODEL_ALIASES"], "a,b"),
    (
        "model.huggingFace.repository",
        MINIMAL,
        lambda it: it.argument("--model"),
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
    (
        "model.huggingFace.revision",
        model(huggingFace={**HUB, "revision": "main"}),
        lambda it: it.argument("--revision"),
        "main",
    ),
    *(
        (
            f"model.huggingFace.tokenSecretRef.{field}",
            model(huggingFace={**HUB, "tokenSecretRef": {"name": "hub", "key": "token"}}),
            lambda it: it.env["HF_TOKEN"],
            {"secretKeyRef": {"name": "hub", "key": "token"}},
        )
        for field in ("name", "key")
    ),
    (
        "model.persistentVolumeClaim.claimName",
        claim(),
        lambda it: (it.volumes["model"], it.mounts["model"], it.argument("--model")),
        ({"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}, "/model", "/model"),
    ),
    ("model.persistentVolumeClaim.path", claim(path="a/b"), lambda it: it.argument("--model"), "/model/a/b"),
    (
        "model.image.reference",
        image(),
        lambda it: it.volumes["model"],
        {"image": {"reference": "registry.example.com/m:1"}},
    ),
    (
        "model.image.pullPolicy",
        image(pullPolicy="Always"),
        lambda it: it.volumes["model"]["image"]["pullPolicy"],
        "Always",
    ),
    ("model.image.path", image(path="m"), lambda it: it.argument("--model"), "/model/m"),
    (
        "model.cache.persistentVolumeClaim.claimName",
        model(cache={"persistentVolumeClaim": {"claimName": "c"}}),
        lambda it: (it.volumes["cache"], it.mounts["cache"], it.pod["securityContext"]["fsGroup"]),
        ({"persistentVolumeClaim": {"claimName": "c"}}, "/cache", 10001),
    ),
    (
        "model.cache.emptyDir.sizeLimit",
        model(cache={"emptyDir": {"sizeLimit": "2048Mi"}}),
        lambda it: it.volumes["cache"],
        {"emptyDir": {"sizeLimit": "2Gi"}},
    ),
    ("model.maxInputTokens", model(maxInputTokens=256), lambda it: it.env["EMBEDDING_MAX_INPUT_TOKENS"], "256"),
    ("model.pooling", model(pooling="LastToken"), lambda it: it.env["EMBEDDING_POOLING"], "LastToken"),
    ("model.prompts.query", model(prompts={"query": "q: "}), lambda it: it.env["EMBEDDING_QUERY_PROMPT"], "q: "),
    ("model.prompts.passage", model(prompts={"passage": ""}), lambda it: it.env["EMBEDDING_PASSAGE_PROMPT"], ""),
    ("runtime.type", nim(), lambda it: "args" in it.runtime, False),
    (
        "runtime.bundled.image.repository",
        own_image(),
        lambda it: it.runtime["image"],
        "registry.example.com/r:1",
    ),
    ("runtime.bundled.image.tag", own_image(tag="2"), lambda it: it.runtime["image"], "registry.example.com/r:2"),
    (
        "runtime.bundled.image.digest",
        own_image(digest=DIGEST),
        lambda it: it.runtime["image"],
        f"registry.example.com/r:1@{DIGEST}",
    ),
    (
        "runtime.bundled.image.pullPolicy",
        bundled(image={"pullPolicy": "Always"}),
        lambda it: (it.runtime["image"], it.runtime["imagePullPolicy"]),
        (CONTEXT.runtime_image, "Always"),
    ),
    (
        "runtime.bundled.image.pullSecrets[].name",
        bundled(image={"pullSecrets": [{"name": "p"}]}),
        lambda it: it.pod["imagePullSecrets"],
        [{"name": "p"}],
    ),
    ("runtime.bundled.precision", bundled(precision="Int8"), lambda it: it.env["EMBEDDING_PRECISION"], "Int8"),
    *(
        (
            f"runtime.bundled.batching.{field}",
            bundled(batching={field: 7}),
            lambda it, variable=variable: it.env[variable],
            "7",
        )
        for field, variable in (
            ("maxWaitMilliseconds", "EMBEDDING_MAX_WAIT_MILLISECONDS"),
            ("maxBatchTokens", "EMBEDDING_MAX_BATCH_TOKENS"),
            ("maxBatchItems", "EMBEDDING_MAX_BATCH_ITEMS"),
            ("maxQueuedTokens", "EMBEDDING_MAX_QUEUED_TOKENS"),
        )
    ),
    (
        "runtime.bundled.requestTimeoutSeconds",
        bundled(requestTimeoutSeconds=9),
        lambda it: it.env["EMBEDDING_REQUEST_TIMEOUT_SECONDS"],
        "9",
    ),
    ("runtime.nim.image.repository", nim(), lambda it: it.runtime["image"], "nvcr.io/nim/e5:1.6.0"),
    ("runtime.nim.image.tag", nim_image(tag="2"), lambda it: it.runtime["image"], "nvcr.io/nim/e5:2"),
    (
        "runtime.nim.image.digest",
        nim_image(digest=DIGEST),
        lambda it: it.runtime["image"],
        f"nvcr.io/nim/e5:1.6.0@{DIGEST}",
    ),
    ("runtime.nim.image.pullPolicy", nim_image(pullPolicy="Never"), lambda it: it.runtime["imagePullPolicy"], "Never"),
    (
        "runtime.nim.image.pullSecrets[].name",
        nim_image(pullSecrets=[{"name": "ngc"}]),
        lambda it: it.pod["imagePullSecrets"],
        [{"name": "ngc"}],
    ),
    (
        "runtime.nim.ngcSecretRef.name",
        nim(ngcSecretRef={"name": "ngc"}),
        lambda it: it.env["NGC_API_KEY"],
        {"secretKeyRef": {"name": "ngc", "key": "NGC_API_KEY"}},
    ),
    ("runtime.nim.profile", nim(profile="p"), lambda it: it.env["NIM_MODEL_PROFILE"], "p"),
    ("runtime.nim.runAsUser", nim(runAsUser=1000), lambda it: it.runtime["securityContext"]["runAsUser"], 1000),
    (
        "runtime.nim.grpcPort",
        {**nim(grpcPort=8001), "networkPolicy": {"enabled": True}},
        lambda it: (
            it.env["NIM_GRPC_API_PORT"],
            it.env["NIM_TRITON_GRPC_PORT"],
            it.runtime["ports"][1],
            it.spec("Service")["ports"][1],
            it.spec("NetworkPolicy")["ingress"][0]["ports"][1]["port"],
        ),
        (
            "8001",
            "8001",
            {"name": "grpc", "containerPort": 8001, "protocol": "TCP"},
            {"name": "grpc", "port": 8001, "targetPort": "grpc", "protocol": "TCP"},
            "grpc",
        ),
    ),
    (
        "runtime.nim.metricsPort",
        {**nim(metricsPort=8002), "monitoring": {"serviceMonitor": {"enabled": True, "interval": "15s"}}},
        lambda it: (
            it.env["NIM_TRITON_METRICS_PORT"],
            it.runtime["ports"][1],
            it.spec("Service")["ports"][1]["port"],
            it.spec("ServiceMonitor")["endpoints"][1],
        ),
        (
            "8002",
            {"name": "metrics", "containerPort": 8002, "protocol": "TCP"},
            8002,
            {"port": "metrics", "path": "/metrics", "interval": "15s"},
        ),
    ),
    (
        "runtime.nim.sharedMemorySizeLimit",
        nim(sharedMemorySizeLimit="8Gi"),
        lambda it: (it.volumes["shm"], it.mounts["shm"]),
        ({"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}, "/dev/shm"),
    ),
    (
        "runtime.startupTimeoutSeconds",
        plus(runtime={"startupTimeoutSeconds": 61}),
        lambda it: (
            it.runtime["startupProbe"]["periodSeconds"] * it.runtime["startupProbe"]["failureThreshold"],
            it.spec("Deployment")["progressDeadlineSeconds"],
        ),
        (65, 661),
    ),
    (
        "runtime.drainTimeoutSeconds",
        plus(runtime={"drainTimeoutSeconds": 60}),
        lambda it: (it.env["EMBEDDING_DRAIN_TIMEOUT_SECONDS"], it.pod["terminationGracePeriodSeconds"]),
        ("60", 75),
    ),
    ("runtime.env", plus(runtime={"env": [{"name": "A", "value": "b"}]}), lambda it: it.env["A"], "b"),
    (
        "runtime.envFrom",
        plus(runtime={"envFrom": [{"secretRef": {"name": "s"}}]}),
        lambda it: it.runtime["envFrom"],
        [{"secretRef": {"name": "s"}}],
    ),
    (
        "runtime.serviceAccountName",
        plus(runtime={"serviceAccountName": "a"}),
        lambda it: (it.pod["serviceAccountName"], it.pod["automountServiceAccountToken"]),
        ("a", False),
    ),
    (
        "runtime.tls.secretName",
        plus(runtime={"tls": {"secretName": "t"}}),
        lambda it: (
            it.volumes["tls"],
            it.env["EMBEDDING_TLS_CERT_FILE"],
            it.env["EMBEDDING_TLS_KEY_FILE"],
            {it.runtime[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "readiness", "liveness")},
        ),
        ({"secret": {"secretName": "t"}}, "/etc/embedding/tls/tls.crt", "/etc/embedding/tls/tls.key", {"HTTPS"}),
    ),
]
