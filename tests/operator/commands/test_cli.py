"""The command line without a cluster: rendering, help, and errors that say what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from embedding_operator.cli import application
from embedding_operator.commands.status import age, page, table
from typer.testing import CliRunner

from tests.operator.build import NOW, pod, resource
from tests.operator.helpers import EXAMPLES

run = CliRunner().invoke


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_renders(path: Path) -> None:
    result = run(application, ["render", str(path), "--namespace", "here"])
    assert result.exit_code == 0, result.output
    children = list(yaml.safe_load_all(result.stdout))
    assert {"Deployment", "Service"} <= {child["kind"] for child in children}
    assert {child["metadata"]["namespace"] for child in children} == {"here"}


def test_rendering_reads_standard_input() -> None:
    result = run(application, ["render", "-"], input=EXAMPLES[0].read_text())
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not YAML"),
        ("kind: ConfigMap", "holds no EmbeddingService"),
        ("kind: EmbeddingService\nmetadata: {name: a}\nspec: {}", "set one of model.huggingFace"),
        ("kind: EmbeddingService\nmetadata: {name: a}\nspec: {replicas: many}", "spec.replicas"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    result = run(application, ["render", str(file)])
    assert result.exit_code == 65
    assert result.stderr.startswith("error: ")
    assert words in result.stderr


def test_a_missing_file_and_a_wrong_setting_are_named(tmp_path: Path) -> None:
    result = run(application, ["render", str(tmp_path / "none.yaml")])
    assert (result.exit_code, "none.yaml cannot be read" in result.stderr) == (65, True)
    result = run(application, ["run"], env={"EMBEDDING_OPERATOR_WORKERS": "lots"})
    assert (result.exit_code, "EMBEDDING_OPERATOR_WORKERS" in result.stderr) == (64, True)


def test_without_a_cluster_one_line_says_so(tmp_path: Path) -> None:
    environment = {"KUBECONFIG": str(tmp_path / "none"), "KUBERNETES_SERVICE_HOST": ""}
    # In a process of its own: `run` sets up logging for the whole of it.
    for arguments in (["status", "minilm"], ["diff", str(EXAMPLES[0])], ["run"]):
        command = [str(Path(sys.executable).with_name("embedding-operator")), *arguments]
        done = subprocess.run(command, env={**os.environ, **environment}, text=True, capture_output=True, check=False)
        assert done.returncode == 69, done.stderr
        assert "error: no cluster" in done.stderr
        assert "Traceback" not in done.stderr


def test_tables_line_up_and_ages_read_well() -> None:
    assert table([["a", "bb", "c"], ["aaa", "b", "cc"]]) == ["a    bb  c", "aaa  b   cc"]
    assert table([]) == []
    assert [age(NOW, NOW), age(None, NOW)] == ["0s", "-"]


def kubeconfig_of(tmp_path: Path, server: str) -> Path:
    kubeconfig = tmp_path / "kubeconfig"
    clusters = [{"name": "one", "cluster": {"server": server}}]
    contexts = [{"name": "one", "context": {"cluster": "one", "user": "one"}}]
    users = [{"name": "one", "user": {}}]
    content = {"current-context": "one", "clusters": clusters, "contexts": contexts, "users": users}
    kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **content}))
    return kubeconfig


class NoSuchKind(BaseHTTPRequestHandler):
    """As an API server answers where a CustomResourceDefinition is not installed."""

    def do_GET(self) -> None:
        content = b"404 page not found\n"
        self.send_response(404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.mark.parametrize("command", [["status", "minilm"], ["support-bundle", "minilm"]])
def test_a_cluster_without_the_definition_is_not_taken_for_one_without_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchKind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = kubeconfig_of(tmp_path, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        result = run(application, command)
        server.shutdown()
    assert result.exit_code == 69, result.output
    assert "is the operator's CustomResourceDefinition installed in this cluster?" in result.output


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    kubeconfig = kubeconfig_of(tmp_path, "http://127.0.0.1:9")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = {"HOST": "127.0.0.1", "PORT": str(port)}
        done = subprocess.run(
            [Path(sys.executable).with_name("embedding-operator"), "run"],
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig),
                **{f"EMBEDDING_OPERATOR_{name}": value for name, value in settings.items()},
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 69
    assert done.stderr.startswith(f"error: cannot listen on port {port} for the operator's health and metrics: ")
    assert "EMBEDDING_OPERATOR_PORT" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_page_names_the_accelerator_that_is_missing() -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    unplaced = {"scheduled": False, "scheduling_reason": "Unschedulable", "scheduling_message": message}
    waiting = pod(ready=False, containers=(), node=None, **unplaced)
    assert "WaitingForAccelerator" in page(resource(), [waiting], NOW)
    # Of a spec that is not understood nothing is known, and the page is there all the same.
    assert "Unschedulable" in page(resource({"model": {}, "replicas": -1}), [waiting], NOW)


def test_a_namespace_on_the_command_line_is_checked_like_one_in_the_environment() -> None:
    result = run(application, ["run", "-n", "search"], env={"EMBEDDING_OPERATOR_METRICS_API_ENABLED": "true"})
    assert result.exit_code == 64
    assert "the metrics API answers for the whole cluster" in result.output
