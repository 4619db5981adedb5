#!/usr/bin/env bash
# Build one target of the Dockerfile; the last line on standard output is the image's reference.
#
#   docker/build.sh [TARGET]       default: torch; tagged cytoloom/TARGET:VERSION, the hash of the image's sources
#
# Variables: IMAGE (another reference), CYTOLOOM_REGISTRY (in place of `cytoloom`), BASE_IMAGE, PIP_INDEX_URL, with
# BASE_IMAGE also PIP_CERT (a path in it), TENSORRT_LIBS (another file for the target export; empty: none).
# An image of this version that exists is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${PIP_INDEX_URL:-} in *@*)
    echo "error: PIP_INDEX_URL: an address with a user or a password stays in the builder's history; give one without" >&2
    exit 1 ;;
esac
target=${1:-torch}
version=$(python3 -c 'from shared.stage.version import image_version; print(image_version())')
image=${IMAGE:-${CYTOLOOM_REGISTRY:-cytoloom}/$target:$version}
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
label=org.opencontainers.image

built=$(docker image inspect --format "{{index .Config.Labels \"$label.version\"}}" "$image" 2>/dev/null || true)
if [ "$built" != "$version" ]; then
    docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 # the old builder serves as well
    arguments=(--build-arg "IMAGE=$image")
    arguments+=(--label "$label.title=cytoloom $target" --label "$label.version=$version" --label "$label.revision=$commit")
    for name in BASE_IMAGE PIP_INDEX_URL ${BASE_IMAGE:+PIP_CERT}; do
        [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
    done
    [ "$target" != export ] || [ -z "${TENSORRT_LIBS+given}" ] || arguments+=(--build-arg "TENSORRT_LIBS=$TENSORRT_LIBS")
    docker build --network host --file docker/Dockerfile --target "$target" --tag "$image" "${arguments[@]}" . >&2
fi
echo "$image"
