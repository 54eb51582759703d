"""What one writes in an afternoon: FastAPI in front of sentence-transformers, the OpenAI embedding API, no batching.

It is meant to be good of its kind: the model is loaded once, `encode` runs in FastAPI's thread pool so that the event
loop stays free, sentence-transformers sorts and batches the texts of a request, and one lock keeps concurrent forwards
from fighting over the same cores (without it, it is slower). Needs requirements/bench-sentence-transformers.txt only.
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Request(BaseModel):
    """The part of OpenAI's request that embeds."""

    model: str
    input: str | list[str]


def create_app(directory: str) -> FastAPI:
    """The application, its model loaded."""
    app = FastAPI()
    model = SentenceTransformer(directory, device="cpu")
    lock = threading.Lock()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/embeddings")
    def embeddings(request: Request) -> dict[str, Any]:
        texts = [request.input] if isinstance(request.input, str) else request.input
        with lock:
            vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        data = [
            {"object": "embedding", "index": index, "embedding": vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": request.model}

    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Model directory.")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.model), host="127.0.0.1", port=arguments.port, access_log=False)


if __name__ == "__main__":
    main()
