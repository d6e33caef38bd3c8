#!/usr/bin/env bash
# Sees to the programs that building, testing and measuring need: says nothing when all are there, installs what is
# missing on Debian when it may, and else prints what to install and fails.
#
# Usage: deploy/install-test-tools.sh [build] [test] [bench]        (default: all of them)
set -euo pipefail
cd "$(dirname "$0")/.."

# program, package, and what for. A program is any of the names between bars.
BUILD='
cc|gcc            gcc               a C compiler: ring, mimalloc and zlib-ng are built from source
cmake             cmake             zlib-ng, which Pingora compresses with
make|gmake        make              what cmake drives
'
TEST='
curl              curl              to look at answers by hand
redis-server      redis-server      the store of a fleet; tests start their own on free ports
nginx             nginx             an upstream that is not ours
openssl           openssl           certificates
promtool          prometheus        the alert rules and their tests
systemd-analyze   systemd           the unit
python3           python3           the bench and the checks of files
node              nodejs            checks of the scripts, and the browser tests
npm               npm               the browser tests
chromium|chromium-browser|google-chrome   chromium   the waiting page in a real browser
h2load            nghttp2-client    HTTP/2
'
BENCH='
wrk               wrk               the load
h2load            nghttp2-client    a load of so many requests a second
redis-cli         redis-tools       what the store counted
nginx             nginx             the upstream, and a proxy to compare with
redis-server      redis-server      the shared store
openssl           openssl           a certificate
python3           python3           the harness
'

has_any() {
  local name
  for name in ${1//|/ }; do
    command -v "$name" >/dev/null 2>&1 && return 0
  done
  return 1
}

# The lines of the wanted groups whose program is missing.
missing_lines() {
  local group programs package why
  for group in "$@"; do
    while read -r programs package why; do
      [ -z "$programs" ] || has_any "$programs" || printf '%s %s %s\n' "$programs" "$package" "$why"
    done <<<"${!group}"
  done | sort -u
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Packages of servers start a service when they are set up; tests want the program and no service.
apt_install() {
  local policy=/usr/sbin/policy-rc.d placed=no
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    placed=yes
  fi
  local outcome=0
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null || outcome=$?
  [ "$outcome" != 0 ] || as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null || outcome=$?
  [ "$placed" = no ] || as_root rm -f "$policy"
  return "$outcome"
}

install_missing() {
  local lines packages
  lines=$(missing_lines "$@")
  [ -n "$lines" ] || return 0
  packages=$(awk '{ print $2 }' <<<"$lines" | sort -u | tr '\n' ' ')
  if may_install; then
    printf 'installing %s\n' "$packages"
    # shellcheck disable=SC2086  # a list of words
    apt_install $packages || printf 'apt-get could not install all of it\n' >&2
    lines=$(missing_lines "$@")
  fi
  [ -n "$lines" ] || return 0
  printf 'missing, and not to be installed from here:\n' >&2
  awk '{ why = ""; for (i = 3; i <= NF; i++) why = why " " $i; printf "  %-16s (package %s):%s\n", $1, $2, why }' <<<"$lines" >&2
  printf 'on Debian: apt-get install %s\n' "$packages" >&2
  return 1
}

# Modules of the browser tests, when their lock file is newer than what is installed.
install_modules() {
  local folder=tests/browser
  [ -f "$folder/package.json" ] || return 0
  [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return 0
  printf 'installing the modules of %s\n' "$folder"
  if [ -f "$folder/package-lock.json" ]; then
    npm --prefix "$folder" ci --no-audit --no-fund --silent </dev/null
  else
    npm --prefix "$folder" install --no-audit --no-fund --silent </dev/null
  fi
}

# What tries the queue API comes from PyPI, into an environment of its own.
install_schemathesis() {
  local folder=tests/openapi
  [ "$folder/tools/installed" -nt "$folder/requirements.txt" ] && return 0
  printf 'installing schemathesis into %s/tools\n' "$folder"
  python3 -m venv "$folder/tools" || { printf 'missing: a virtual environment (package python3-venv)\n' >&2; return 1; }
  "$folder/tools/bin/pip" install --quiet --disable-pip-version-check -r "$folder/requirements.txt" </dev/null
  touch "$folder/tools/installed"
}

groups=()
for group in "${@:-build test bench}"; do
  for word in $group; do
    case $word in
      build | test | bench) groups+=("${word^^}") ;;
      *) printf 'no group %s: there are build, test and bench\n' "$word" >&2; exit 2 ;;
    esac
  done
done
install_missing "${groups[@]}"
case " ${groups[*]} " in
  *" TEST "*)
    install_modules
    install_schemathesis
    ;;
esac
