#!/usr/bin/env bash
# Install the Debian packages that the tests need, or say how: the one list of them.
#
#   tools/system_packages.sh [--dry-run] [PACKAGE...]     default: all; --dry-run: print the command, install nothing
#
# A package counts as installed if its command is on PATH, wherever that came from; Docker also if an engine answers.
# As root, or with a sudo that asks for no password, what is missing is installed. Otherwise this prints the command
# that installs it and exits with 1. Without apt-get, it lists the missing commands and exits with 0.
set -euo pipefail
PATH=$PATH${SBIN-:/usr/sbin:/sbin} # dockerd is there, where the PATH of many users does not lead

packages=(make git ca-certificates python3 python3-venv docker.io iptables mmdebstrap procps chromium kubernetes-client)

there() { # there PACKAGE: whether the machine has it
    case $1 in
        ca-certificates) test -s /etc/ssl/certs/ca-certificates.crt ;;
        python3-venv) python3 -c 'import ensurepip, venv' ;;
        docker.io) engine || any dockerd && any docker ;;
        iptables) engine || any iptables ;;
        procps) any ps ;;
        chromium) any chromium chromium-browser google-chrome ;;
        kubernetes-client) any kubectl ;;
        *) any "$1" ;;
    esac >/dev/null 2>&1
}

any() { # any COMMAND...: whether one of them is on PATH
    local name
    for name in "$@"; do command -v "$name" && return 0; done
    return 1
}

engine() { # whether a Docker engine answers
    [ -n "${answers:-}" ] || { timeout 10 docker version && answers=yes || answers=no; }
    [ "$answers" = yes ]
}

fail() { echo "error: $*" >&2; exit 1; }

dry=
[ "${1:-}" != --dry-run ] || { dry=yes; shift; }
missing=()
for package in "${@:-${packages[@]}}"; do
    [[ " ${packages[*]} " = *" $package "* ]] || fail "$package: the tests need no such package; known: ${packages[*]}"
    there "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || {
    echo "warning: tests will fail for lack of what Debian has in the packages: ${missing[*]}" >&2
    exit 0
}
install="apt-get install -y --no-install-recommends ${missing[*]}"
[ -z "$dry" ] || { echo "$install"; exit 0; }
as_root=
sudo=$(command -v sudo || true)
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || fail "system packages are missing; install them as root: ${sudo:+sudo }$install"
    as_root="sudo -n"
fi
echo "installing system packages: ${missing[*]}" >&2
$as_root apt-get update -qq >&2
$as_root env DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
