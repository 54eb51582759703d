#!/usr/bin/env bash
# Builds the two images with docker or buildah. `tools/images.sh --help` explains.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
usage: tools/images.sh [options] [operator] [runtime]
       tools/images.sh [--python VERSION] lock-torch INDEX_URL

Builds embedding-operator and embedding-runtime (or only the one named) from Dockerfile.operator and Dockerfile.runtime.

options
  --repository PREFIX  put PREFIX/ before the image's name: registry.example.com/team
  --tag TAG            the image's tag [the version in operator/pyproject.toml]
  --base IMAGE         the base image, by digest for production [python:3.13-slim-bookworm]
  --tool NAME          docker or buildah [docker when its daemon answers, otherwise buildah]
  --index URL          a mirror of the Python package index [pip's own default]
  --torch-index URL    a further package index that has another build of torch (CPU only, another CUDA version):
                       pins it first (lock-torch), then builds the runtime with those pins
  --python VERSION     the Python of the base image, for --torch-index and lock-torch [3.13]
  --push               push what was built; log in to the registry before
  --help               this text

lock-torch INDEX_URL   only write requirements/runtime.local.txt: the runtime's requirements pinned by hash, torch from that index

environment
  BUILD_FLAGS          further flags for `docker build` or `buildah bud`, for instance: --isolation chroot --pull-never
  BUILDAH_FLAGS        flags of buildah itself, for instance: --storage-driver vfs

The runtime's image is about 6 GB: the torch of the Python package index is built for CUDA and brings NVIDIA's libraries.

examples
  tools/images.sh
  tools/images.sh --repository registry.example.com/team --push
  tools/images.sh --torch-index https://index.example.com/cpu --tag 0.1.0-cpu runtime
TEXT
}

fail() { echo "error: $*" >&2; exit 1; }

repository='' tag='' base='' tool='' index='' torch_index='' python=3.13 push='' lock_only=''
images=()
while [ $# -gt 0 ]; do
  case $1 in
    --repository|--tag|--base|--tool|--index|--torch-index|--python)
      [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value; see tools/images.sh --help"
      name=${1#--}; printf -v "${name//-/_}" %s "$2"; shift 2 ;;
    --push) push=1; shift ;;
    --help|-h) usage; exit 0 ;;
    operator|runtime) images+=("$1"); shift ;;
    lock-torch) [ $# -ge 2 ] || fail "lock-torch needs the index: tools/images.sh lock-torch INDEX_URL"; torch_index=$2 lock_only=1; shift 2 ;;
    *) fail "unknown argument $1; see tools/images.sh --help" ;;
  esac
done
[ ${#images[@]} -gt 0 ] || images=(operator runtime)

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' operator/pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || true)
if [ -z "$revision" ] || [ -n "$(git status --porcelain 2>/dev/null)" ]; then revision=${revision:+$revision-modified}; fi
tag=${tag:-$version}

requirements=''
if [ -n "$torch_index" ]; then
  tools/environment.sh
  requirements=requirements/runtime.local.txt
  echo "images: pinning the runtime's requirements with torch from $torch_index"
  # uv takes each package from the first index that has it, and the index given here comes before the default one. The pins it
  # finds in the output are kept where they fit, so everything but torch stays what was tested.
  cp requirements/runtime.txt "$requirements"
  .venv/bin/uv pip compile --quiet --universal --python-version "$python" --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate ${index:+--default-index "$index"} --index "$torch_index" requirements/runtime.in -o "$requirements" \
    || { rm -f "$requirements"; fail "could not pin torch from $torch_index: is it the address of a package index that has torch?"; }
  echo "images: $requirements"
  [ -z "$lock_only" ] || exit 0
fi

if [ -z "$tool" ]; then
  if docker info >/dev/null 2>&1; then tool=docker
  elif command -v buildah >/dev/null; then tool=buildah
  else fail "neither a docker daemon nor buildah was found: start docker, or install buildah (apt-get install buildah, dnf install buildah)"
  fi
fi
read -ra build_flags <<<"${BUILD_FLAGS:-}"
read -ra buildah_flags <<<"${BUILDAH_FLAGS:-}"
case $tool in
  docker) build=(docker build) run=(docker) ;;
  buildah) build=(buildah "${buildah_flags[@]}" bud) run=(buildah "${buildah_flags[@]}") ;;
  *) fail "--tool is $tool; it can be docker or buildah" ;;
esac

for image in "${images[@]}"; do
  name=${repository:+$repository/}embedding-$image:$tag
  arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
  [ -z "$base" ] || arguments+=(--build-arg "BASE=$base")
  [ -z "$index" ] || arguments+=(--build-arg "PIP_INDEX_URL=$index")
  if [ "$image" = runtime ] && [ -n "$torch_index" ]; then
    arguments+=(--build-arg "REQUIREMENTS=$requirements" --build-arg "PIP_EXTRA_INDEX_URL=$torch_index")
  fi
  echo "images: $name with $tool"
  "${build[@]}" "${build_flags[@]}" "${arguments[@]}" -f "Dockerfile.$image" -t "$name" .
  if [ -n "$push" ]; then "${run[@]}" push "$name"; fi
done
