"""What leaves the cluster in a bundle holds no secret, and loses nothing that is none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedding_operator.api import parse
from embedding_operator.commands.redaction import REDACTED, Redactor, looks_secret
from embedding_operator.render import render
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.helpers import CONTEXT, EXAMPLES, example, resource
from tests.operator.strategies import specs


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "NGC_API_KEY",
        "apiKey",
        "DB_PASSWORD",
        "MY_SECRET",
        "AWS_SECRET_ACCESS_KEY",
        "auth",
        "SENTRY_DSN",
        "HUB_TOKENS",
        "CLIENT_KEYS",
        "DB_PASS",
        "X-Api-Key",
        "GITHUB_PAT",
        "HASH_SALT",
        "LICENSE",
        "REQUEST_SIGNATURE",
        "SLACK_WEBHOOK_URL",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "EMBEDDING_MAX_BATCH_TOKENS",
        "EMBEDDING_MAX_QUEUED_TOKENS",
        "max_input_tokens",
        "MODEL",
        "KEYBOARD",
        "TOKENIZERS_PARALLELISM",
        "NIM_NUM_TOKENIZERS",
        "PATH",
        "PATTERN",
        "org.opencontainers.image.licenses",
    ],
)
def test_names_of_others(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Authorization: Bearer abc.def-123 ok", " ok"),
        ("GET https://user:hunter22@host/x", "@host/x"),
        ("token eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl end", " end"),
        ("using hf_abcdefghijklmnop now", " now"),
        ('{"api_key": "0123456789", "b": 1}', '", "b": 1}'),
        ("password=swordfish;x=1", ";x=1"),
        ("GET https://x.blob.core.windows.net/m?se=2027&sig=abc.def%2F1 200", " 200"),
        ("https://b.s3.amazonaws.com/m?X-Amz-Signature=0123456789&x=1", "&x=1"),
        ("https://cdn.example.com/m?signature=swordfish end", " end"),
        ("post to https://hooks.slack.com/services/T0/B0/swordfish failed", " failed"),
        ("post to https://discord.com/api/webhooks/12/swordfish failed", " failed"),
        ("post to https://x.webhook.office.com/webhookb2/swordfish/IncomingWebhook/0123456789 failed", " failed"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nafter", "\nafter"),
    ],
)
def test_secrets_in_texts(text: str, rest: str) -> None:
    redacted = Redactor().text(text)
    assert REDACTED in redacted
    assert redacted.endswith(rest)
    secrets = ("abc.def", "hunter22", "eyJhbGci", "hf_abc", "0123456789", "swordfish", "MIIE")
    assert not any(secret in redacted for secret in secrets)


@pytest.mark.parametrize(
    "text",
    [
        'embedding_tokens_total{input_type="query"} 10.0',
        '{"max_input_tokens": 256, "dimensions": 384}',
        "2026-11-20 loaded sentence-transformers/all-MiniLM-L6-v2 in 3.2 s",
        "http://minilm.search.svc:8000/v1",
        "batch of 31 items, token_budget=16384 token_count: 15990, longest 512 tokens",
        "Some weights were not used: token_type_ids=1, tokenizer: BertTokenizerFast",
        "became the leader  lease=embedding-operator  service=search/minilm",
        'calling webhook "x": Post "https://webhook.system.svc:443/validate?timeout=10s": EOF',
        "GET http://10.0.0.1:8000/v1/health/ready 200, next in 3.0 s; see user@example.com",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_objects_keep_references_and_lose_values_everywhere() -> None:
    redactor = Redactor()
    environment = [
        {"name": "EXTRA_TOKEN", "value": "letmein-please"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "EMBEDDING_MAX_BATCH_TOKENS", "value": "4096"},
    ]
    live = {
        "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "letmein-please", "mine": "yes"},
            "managedFields": [{}],
        },
        "spec": {"containers": [{"env": environment, "args": ["--password=swordfish", "--key-of=letmein-please"]}]},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    redactor.learn(live)
    assert redactor.object(live) == {
        "metadata": {"annotations": {"mine": "yes"}},
        "spec": {
            "containers": [
                {
                    "env": [{"name": "EXTRA_TOKEN", "value": REDACTED}, *environment[1:]],
                    "args": [f"--password={REDACTED}", f"--key-of={REDACTED}"],
                }
            ]
        },
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    assert (
        redactor.text("started with letmein-please on nvidia.com/gpu") == f"started with {REDACTED} on nvidia.com/gpu"
    )


# Properties ----------------------------------------------------------------------------------------------------------

SECRETS = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789._~+!$%^*", min_size=8, max_size=40).filter(
    lambda text: text.strip("._~+!$%^*") == text and not text.startswith("redact") and not text.isdecimal()
)
NAMES = st.one_of(
    st.sampled_from(["API_KEY", "HUB_TOKENS", "HF_TOKEN", "DB_PASSWORD", "MYSQL_PASS", "CLIENT_SECRET", "license_key"]),
    st.sampled_from(["apiKey", "client-keys", "authToken", "AWS_SECRET_ACCESS_KEY", "my.private-key", "signingKey"]),
    st.sampled_from(["SERVICE_CREDENTIALS", "session-cookie", "account_token", "HELPER_TOKEN", "max_user_token"]),
)
WORDS = st.sampled_from(
    [
        "account-token",
        "api-key",
        "api_key",
        "apikey",
        "password",
        "passwd",
        "auth-token",
        "access-key",
        "client-secret",
        "db-password",
    ]
)
TEXTS = [
    "before {scheme}://:{secret}@cache:6379/0 after",
    "before {scheme}://user:{secret}@db.search.svc/x after",
    "before token={secret} after",
    'before {{"token": "{secret}"}} after',
    "before {word}={secret} after",
    "before {word}: {secret} after",
    'before {{"{word}": "{secret}"}} after',
    'before {{\\"{word}\\": \\"{secret}\\"}} after',
    "before serve --{word} {secret} after",
    "before serve --{word}={secret} after",
    "before Authorization: Bearer {secret}, after",
    "before authorization: {secret}; after",
    "before 'Authorization': 'Token {secret}' after",
    'before {{"authorization": ["ApiKey {secret}"]}} after',
    "before (b'authorization', b'Bearer {secret}') after",
    "before X-Api-Key: {secret}; after",
    "before proxy-authorization: Basic {secret}; after",
    'before [{{"name": "MY_{word}", "value": "{secret}"}}] after',
]


@given(
    template=st.sampled_from(TEXTS),
    secret=SECRETS,
    word=WORDS,
    scheme=st.sampled_from(["redis", "https", "postgresql+psycopg"]),
)
def test_no_secret_stays_in_a_text_wherever_it_stands(template: str, secret: str, word: str, scheme: str) -> None:
    text = template.format(secret=secret, word=word, scheme=scheme)
    redacted = Redactor().text(text)
    assert secret not in redacted
    assert redacted.startswith("before ")
    assert redacted.endswith("after")


def places(name: str, secret: str) -> list[Any]:
    """Objects that hold a secret under a name that says so."""
    return [
        {"env": [{"name": name, "value": secret}]},
        {"metadata": {"annotations": {f"example.com/{name}": secret}}},
        {"kind": "ConfigMap", "data": {name: secret}},
        {"kind": "ConfigMap", "data": {"settings.yaml": f"a: 1\nmy_password: {secret}\nb: 2"}},
        {"kind": "ConfigMap", "data": {"settings.json": json.dumps({"a": {name: secret}})}},
        {"metadata": {"annotations": {"tool": json.dumps({"env": [{"name": name, "value": secret}]})}}},
        {"volumes": [{"name": "v", "csi": {"driver": "d", "volumeAttributes": {name: secret, "tier": "fast"}}}]},
        {"containers": [{"args": ["serve", f"--{name}", secret, "--port", "8000"]}]},
        {"containers": [{"args": ["serve", f"--{name}={secret}", "--port", "8000"]}]},
        {"containers": [{"command": ["env", f"{name.replace('-', '_').replace('.', '_')}={secret}", "serve"]}]},
        {"containers": [{"command": ["sh", "-c", f"serve --api-key {secret} --port 8000"]}]},
        {"httpGet": {"httpHeaders": [{"name": f"X-{name}", "value": secret}]}},
    ]


@given(name=NAMES, secret=SECRETS, place=st.integers(0, 11))
def test_no_secret_stays_in_an_object_nor_in_any_text_beside_it(name: str, secret: str, place: int) -> None:
    live = places(name, secret)[place]
    redactor = Redactor()
    redactor.learn(live)
    assert secret not in yaml.safe_dump(redactor.object(live), width=10_000)
    assert REDACTED in str(redactor.object(live))
    if place not in (3, 10):  # told by their surroundings alone, which a log does not repeat
        assert secret not in redactor.text(f"it said {secret} today")


@given(spec=specs)
def test_what_the_operator_renders_loses_nothing(spec: dict[str, Any]) -> None:
    """References, keys of labels, counts of tokens, file names: none is a secret."""
    plain = {key: value for key, value in spec.items() if key in ("accelerator", "autoscaling", "rollout", "replicas")}
    for child in render(parse(resource({**plain, "model": {"huggingFace": {"repository": "a/b"}}})), CONTEXT):
        assert Redactor().object(child) == child


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_lose_nothing(path: Path) -> None:
    resource = example(path)
    for live in (resource, *render(parse(resource), CONTEXT)):
        redactor = Redactor()
        redactor.learn(live)
        assert redactor.object(live) == live


def test_a_long_line_takes_no_time() -> None:
    for text in (
        "a" * 3_000_000,
        "x-" * 1_000_000,
        "-token-" * 300_000,
        "://" * 500_000,
        "://a/" * 300_000,
        "eyJ" * 500_000,
    ):
        began = time.monotonic()
        Redactor().text(text)
        assert time.monotonic() - began < 30
