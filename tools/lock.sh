#!/usr/bin/env bash
# Resolves requirements/*.in into pins with hashes that hold for every supported Python. No index address is written.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
for name in bootstrap go operator runtime development bench-infinity bench-sentence-transformers; do
  ../.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$name.in" -o "$name.txt"
  echo "lock: requirements/$name.txt"
done
