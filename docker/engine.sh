#!/usr/bin/env bash
# Start a Docker engine for tests and CI on a machine where none runs. Debian, as root.
#
#   docker/engine.sh start FOLDER   install missing packages, start dockerd with its data in FOLDER, wait until it
#                                   answers, and print `export DOCKER_HOST=...`; also if it runs already
#   docker/engine.sh stop FOLDER    stop that engine and wait until it has ended
#   docker/engine.sh base NAME      create a Debian base image with Python unless one of that name exists:
#                                   for a machine that reaches Debian's packages but no image registry
#
# No bridge and no iptables rules: containers use the host's network (`--network host`).
set -euo pipefail

fail() { echo "engine.sh: $*" >&2; exit 1; }

need() { # need COMMAND PACKAGE...: install the packages where they are missing
    "$(dirname "$0")/../tools/system_packages.sh" "${@:2}"
    command -v "$1" >/dev/null || fail "$1 is missing; install it"
}

places() { # not in FOLDER: the paths of sockets must be short
    data=$(realpath -m "${1:?a folder is needed}")
    state=/run/cytoloom-engine-$(printf %s "$data" | sha256sum | cut -c1-12)
    export DOCKER_HOST=unix://$state/docker.sock
}

answers() { docker version >/dev/null 2>&1; }

start() {
    places "$1"
    if ! answers; then
        need dockerd docker.io iptables
        mkdir -p "$data" "$state"
        rm -f "$state/docker.pid"
        setsid dockerd --host "$DOCKER_HOST" --data-root "$data" --exec-root "$state/exec" --pidfile "$state/docker.pid" \
            --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
            >"$state/log" 2>&1 </dev/null &
        for _ in $(seq 120); do
            answers && break
            sleep 0.5
        done
        answers || { tail -n 20 "$state/log" >&2; fail "dockerd: no answer after 60 s; its log is above"; }
    fi
    echo "export DOCKER_HOST=$DOCKER_HOST"
}

stop() {
    places "$1"
    [ -f "$state/docker.pid" ] || return 0
    local pid
    pid=$(cat "$state/docker.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 60); do
        [ -d "/proc/$pid" ] || break
        sleep 0.5
    done
    [ ! -d "/proc/$pid" ] || fail "dockerd: process $pid does not end"
    umount "$state"/exec/netns/* 2>/dev/null || true
    rm -rf "$state"
}

base() {
    local name=${1:?a name is needed} tree
    docker image inspect "$name" >/dev/null 2>&1 && return
    need mmdebstrap mmdebstrap
    tree=$(mktemp -d)
    # The certificates this machine trusts replace Debian's, for a package index behind a certificate of its own.
    # shellcheck disable=SC2016  # $1 is for mmdebstrap's hook
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --customize-hook='cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
        bookworm "$tree/base.tar" >&2
    docker import "$tree/base.tar" "$name" >/dev/null
    rm -rf "$tree"
}

case ${1:-} in
    start | stop | base) "$@" ;;
    *) fail "usage: docker/engine.sh start FOLDER | stop FOLDER | base NAME" ;;
esac
