#!/bin/sh
# Installs the Debian packages that the tests need and that are not there yet; with the argument
# "bench", those of the benchmarks too; with "deployment", those of examples/deployment.
#
# Does nothing where nothing is missing, or where there is no apt. Needs root, or sudo without a
# password; else it says what to install, and leaves it to the tests to say what they miss.
set -eu
cd "$(dirname "$0")/.."

needed=""
# A Python that can make virtual environments, and the browser that looks at the relay's page.
scripts/find-python >/dev/null 2>&1 || needed="python3 python3-venv"
command -v chromium-headless-shell >/dev/null 2>&1 || command -v chromium >/dev/null 2>&1 || needed="$needed chromium-headless-shell"
# And another, of which the page must not ask more than it has.
command -v firefox-esr >/dev/null 2>&1 || command -v firefox >/dev/null 2>&1 || needed="$needed firefox-esr"
# What useChat is made of reads the relay's streams, in Node.
command -v npm >/dev/null 2>&1 || needed="$needed nodejs npm"
# Their load server is written in C.
if [ "${1:-}" = bench ] && ! command -v "${CC:-cc}" >/dev/null 2>&1; then
    needed="$needed gcc libc6-dev"
fi
# What stands in front of the workers, and what watches them.
if [ "${1:-}" = deployment ]; then
    PATH="$PATH:/usr/sbin"
    command -v nginx >/dev/null 2>&1 || needed="$needed nginx-light"
    command -v prometheus >/dev/null 2>&1 || needed="$needed prometheus"
fi

# Limits that processes share are tested on a real server, which the tests start themselves.
command -v redis-server >/dev/null 2>&1 || needed="$needed redis-server"

command -v apt-get >/dev/null 2>&1 || exit 0
missing=""
for package in $needed; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "install-debian.sh: neither root nor sudo; please install:$missing" >&2
        exit 0
    fi
    as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q
# Chromium without its windows is a package of its own since Debian 12; elsewhere there is only all of it.
if ! apt-cache show chromium-headless-shell >/dev/null 2>&1; then
    missing=$(echo "$missing" | sed 's/chromium-headless-shell/chromium/')
fi
# shellcheck disable=SC2086 - the words are separate packages
$as_root apt-get install -q -y --no-install-recommends $missing
