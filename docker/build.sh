#!/usr/bin/env bash
# Build one target of the Dockerfile; the last line on standard output is the image's reference.
#
#   docker/build.sh [TARGET]       default: torch; tagged cytoloom/TARGET:VERSION, the hash of what goes in
#
# From the environment: IMAGE (another reference), CYTOLOOM_REGISTRY (instead of `cytoloom`), BASE_IMAGE, PIP_INDEX_URL,
# and with BASE_IMAGE PIP_CERT (a path in it); TENSORRT_LIBS (another file for the target export, or none: ""). An image of that version that is there already is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-torch}
version=$(python3 -c 'from shared.stage.version import image_version; print(image_version())')
image=${IMAGE:-${CYTOLOOM_REGISTRY:-cytoloom}/$target:$version}
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)

built=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image" 2>/dev/null || true)
if [ "$built" != "$version" ]; then
    docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 # the older builder serves as well
    arguments=(--build-arg "IMAGE=$image" --build-arg "VERSION=$version" --build-arg "COMMIT=$commit")
    for name in BASE_IMAGE PIP_INDEX_URL ${BASE_IMAGE:+PIP_CERT}; do
        [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
    done
    [ "$target" != export ] || [ -z "${TENSORRT_LIBS+given}" ] || arguments+=(--build-arg "TENSORRT_LIBS=$TENSORRT_LIBS")
    docker build --network host --file docker/Dockerfile --target "$target" --tag "$image" "${arguments[@]}" . >&2
fi
echo "$image"
