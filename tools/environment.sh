#!/usr/bin/env bash
# Creates or renews .venv/: every package pinned by hash, the two distributions installed from the tree.
# Does nothing when .venv/ already matches requirements/ (compared by content).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11 (found: $("$python" --version 2>&1 || echo none))" >&2
  exit 1
fi
wanted=$("$python" --version; cat requirements/bootstrap.txt requirements/development.txt operator/pyproject.toml runtime/pyproject.toml tools/environment.sh | sha256sum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/.matches 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

echo "environment: creating .venv/ (torch for CUDA is in it: about 6 GB on disk)"
rm -f .venv/.matches
if ! "$python" -m venv --clear .venv 2>/dev/null; then
  echo "error: $python cannot create virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2
  exit 1
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
# UV_FIND_LINKS and friends of a machine's own set-up are honoured; hashes decide what may be installed.
VIRTUAL_ENV=.venv .venv/bin/uv pip install --require-hashes -r requirements/bootstrap.txt -r requirements/development.txt
VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --no-build-isolation -e operator -e runtime
echo "$wanted" > .venv/.matches
echo "environment: .venv/ is ready"
