"""What leaves the cluster in a bundle holds no secret, and loses nothing that is none."""

from __future__ import annotations

import pytest
from embedding_operator.commands.redaction import REDACTED, Redactor, looks_secret


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "NGC_API_KEY", "apiKey", "DB_PASSWORD", "MY_SECRET", "AWS_SECRET_ACCESS_KEY", "auth", "SENTRY_DSN"],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["EMBEDDING_MAX_BATCH_TOKENS", "EMBEDDING_MAX_QUEUED_TOKENS", "max_input_tokens", "MODEL", "KEYBOARD"]
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
