"""API keys and rate limits: who gets in, who is told what, and how files that change are followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from embedding_runtime.api.errors import ApiError
from embedding_runtime.api.keys import Bucket, Gate
from embedding_runtime.errors import SettingsError
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.api.served import Served, served

BODY = {"model": "letters", "input": "a b c"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mounted Secret: entries are links into a hidden directory."""
    directory = tmp_path_factory.mktemp("keys")
    hidden = directory / "..data"
    hidden.mkdir()
    (hidden / "team-a").write_text("key-a\n")
    (hidden / "team-b").write_text("key-b")
    for name in ("team-a", "team-b"):
        (directory / name).symlink_to(hidden / name)
    return directory


@pytest.fixture(scope="module")
def it(directory: Path) -> Iterator[Served]:
    with served(keys=directory) as it:
        yield it


def latin(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode("latin-1") for name, value in headers.items()}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), {"authorization": "Basic key-a"}, {"authorization": "Bearer"}, {"authorization": "\u00e9"}],
)
def test_missing_and_wrong_keys_get_the_same_answer(it: Served, headers: dict[str, str]) -> None:
    for path, method in (
        ("/v1/embeddings", "POST"),
        ("/api/v3/inference/embeddings", "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/x", "GET"),
    ):
        # An invalid body changes nothing: 401 comes before every other check.
        answer = httpx.request(
            method, it.url + path, headers=latin(headers), content=b"{" if method == "POST" else None
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json()
        assert (error["object"], error["type"]) == ("error", "authentication_error")
        assert error["message"] == "a valid API key is required; send it as 'Authorization: Bearer KEY'"


def test_keys_open_the_closed_routes(it: Served) -> None:
    for key in ("key-a", "key-b"):
        assert httpx.post(f"{it.url}/v1/embeddings", json=BODY, headers=bearer(key)).status_code == 200
        assert httpx.get(f"{it.url}/v1/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "path", ["health/ready", "health/live", "metrics", "metadata", "manifest", "version", "license"]
)
def test_information_stays_open(it: Served, path: str) -> None:
    assert httpx.get(f"{it.url}/v1/{path}").status_code == 200


def test_paths_and_methods_come_before_keys(it: Served) -> None:
    assert httpx.get(f"{it.url}/nowhere").status_code == 404
    assert httpx.get(f"{it.url}/v1/embeddings").status_code == 405
    paths = httpx.get(f"{it.url}/openapi.json").json()["paths"]
    for path, method in (("/v1/embeddings", "post"), ("/v1/models", "get"), ("/v1/models/{model_id}", "get")):
        assert paths[path][method]["security"] == [{"BearerAuth": []}]


def admit(gate: Gate, authorization: str) -> str | None:
    """As the closed routes do: who it is, and one request charged."""
    client = gate.identify(authorization)
    gate.spend_request(client)
    return client


def test_changed_keys_are_read_again_and_broken_limits_keep_the_old_ones(tmp_path: Path) -> None:
    now = 0.0
    (tmp_path / "a").write_text("one")
    gate = Gate(tmp_path, clock=lambda: now)
    assert admit(gate, "Bearer one") == "a"
    (tmp_path / "a").write_text("two, longer")
    now = 10.0
    assert admit(gate, "Bearer two, longer") == "a"
    with pytest.raises(ApiError):
        admit(gate, "Bearer one")
    (tmp_path / "limits.yaml").write_text("a: 7")
    now = 20.0
    assert admit(gate, "bearer two, longer") == "a"
    (tmp_path / "limits.yaml").write_text("a: {requestsPerMinute: 1}")
    now = 30.0
    assert admit(gate, "Bearer two, longer") == "a"
    with pytest.raises(ApiError) as refused:
        admit(gate, "Bearer two, longer")
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "60")
    assert refused.value.kind == "rate_limit_error"
    now = 91.0
    assert admit(gate, "Bearer two, longer") == "a"


def status(gate: Gate, key: str) -> int:
    try:
        admit(gate, f"Bearer {key}")
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize("limits", ["{", "a: 7", "a: {requestsPerHour: 1}", "\x00"])
def test_a_key_is_revoked_at_once_whatever_else_is_broken(tmp_path: Path, limits: str) -> None:
    now = 0.0
    for name in "abc":
        (tmp_path / name).write_text(f"key-{name}")
    (tmp_path / "limits.yaml").write_text("c: {requestsPerMinute: 4}")
    gate = Gate(tmp_path, clock=lambda: now)
    assert [status(gate, f"key-{name}") for name in "abcd"] == [200, 200, 200, 401]
    (tmp_path / "limits.yaml").write_text(limits)
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text(" \n")
    (tmp_path / "d").write_text("key-d")
    now = 2.0
    assert [status(gate, f"key-{name}") for name in "abcd"] == [401, 401, 200, 200]
    assert status(gate, "") == 401
    # The earlier limits are still in force.
    assert [status(gate, "key-c") for _ in range(4)] == [200, 200, 429, 429]


def test_what_is_broken_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    (tmp_path / "a").write_text("key-a")
    gate = Gate(tmp_path, clock=lambda: now)
    (tmp_path / "limits.yaml").write_text("a: secret")
    (tmp_path / "b").write_text("")
    with caplog.at_level("ERROR"):
        for moment in range(2, 20, 2):
            now = float(moment)
            assert status(gate, "key-a") == 200
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "holds no key" in messages[0]
    assert "limits.yaml must map clients" in messages[1]
    assert not any("secret" in message or "key-a" in message for message in messages)


def test_a_directory_that_cannot_be_listed_keeps_the_keys_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "a").write_text("key-a")
    gate = Gate(keys, clock=lambda: now)
    keys.rename(tmp_path / "away")
    with caplog.at_level("ERROR"):
        for moment in range(2, 20, 2):
            now = float(moment)
            assert status(gate, "key-a") == 200
    assert len(caplog.records) == 1
    (tmp_path / "away").rename(keys)
    (keys / "a").unlink()
    now = 40.0
    assert status(gate, "key-a") == 401


def test_limits_by_tokens_and_by_default(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"key-{name}")
    (tmp_path / "limits.yaml").write_text("default: {requestsPerMinute: 2}\nb: {tokensPerMinute: 4}\n")
    with served(keys=tmp_path) as it:
        statuses = [
            httpx.post(f"{it.url}/v1/embeddings", json=BODY, headers=bearer("key-a")).status_code for _ in range(3)
        ]
        assert statuses == [200, 200, 429]
        assert 'embedding_rejected_total{reason="rate_limit"} 1.0' in httpx.get(f"{it.url}/v1/metrics").text
        answers = [httpx.post(f"{it.url}/v1/embeddings", json=BODY, headers=bearer("key-b")) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert 1 <= int(answers[1].headers["retry-after"]) <= 60
        assert answers[1].json()["type"] == "rate_limit_error"
        assert answers[1].json()["message"] == "rate limit reached: 4 tokens per minute; try again later"


@pytest.mark.parametrize("content", ["{", "a: {requestsPerMinute: many}", "a: {requestsPerHour: 1}", "[1]"])
def test_unusable_limits_are_named_at_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "limits.yaml").write_text(content)
    with pytest.raises(SettingsError, match=r"limits\.yaml must map clients"):
        Gate(tmp_path)


def test_a_directory_that_is_not_there_or_a_key_that_is_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        Gate(tmp_path / "nothing")
    (tmp_path / "a").write_text(" \n")
    with pytest.raises(SettingsError, match="holds no key"):
        Gate(tmp_path)


@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 250)), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(per_minute: int, steps: list[tuple[float, int]]) -> None:
    bucket = Bucket(per_minute, 0.0)
    now, taken = 0.0, 0.0
    for pause, amount in steps:
        now += pause
        wait = bucket.wait(amount, now)
        assert wait <= 60 * (1 + 250 / per_minute)
        if wait == 0:
            bucket.take(amount, now)
            taken += amount
            # One bucketful at once, the rate afterwards, and one request on credit.
            assert taken <= per_minute * (1 + now / 60) + 250
        else:
            assert bucket.wait(amount, now + wait + 1e-6) == pytest.approx(0, abs=1e-3)
