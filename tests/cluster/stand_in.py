"""A program that answers like one of NVIDIA's embedding images, or like a Pod behind a mesh. The standard library only.

What it does is chosen by variables, as a container's: STAND_IN_MODE is `nim` (health, models and metadata answer, there
is no manifest) or `mesh` (only a kubelet's probes are answered, every other connection is closed, as a mesh does with
plain text); STAND_IN_READY_AFTER is the seconds of its loading. GET /stand-in shows how it was started.
"""

import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BEGAN = time.monotonic()
MODE = os.environ.get("STAND_IN_MODE", "nim")
READY_AFTER = float(os.environ.get("STAND_IN_READY_AFTER", "0"))
MODEL = os.environ.get("NIM_SERVED_MODEL_NAME", "nvidia/stand-in")


def mounts() -> dict[str, str]:
    """Mount points and what kind of file system is there."""
    with open("/proc/self/mounts") as file:
        return {line.split()[1]: line.split()[2] for line in file}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if MODE == "mesh" and not self.headers.get("User-Agent", "").startswith("kube-probe/"):
            self.close_connection = True
            return
        ready = time.monotonic() - BEGAN >= READY_AFTER
        answers = {
            "/v1/health/live": (200, {"object": "health.response", "message": "live"}),
            "/v1/health/ready": (200 if ready else 503, {"message": "ready" if ready else "NIM is loading the model"}),
            "/v1/models": (200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]}),
            "/v1/metadata": (200, {"modelInfo": [{"shortName": MODEL}]}),
            "/v1/metrics": (200, None),
            "/stand-in": (200, {"environment": dict(os.environ), "mounts": mounts(), "user": os.getuid()}),
        }
        status, body = answers.get(self.path, (404, {"detail": "Not Found"}))
        content = b"nv_inference_count 0\n" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    port = int(os.environ.get("NIM_SERVER_PORT") or os.environ["EMBEDDING_PORT"])
    ThreadingHTTPServer((os.environ["STAND_IN_HOST"], port), Handler).serve_forever()
