#!/usr/bin/env bash
# Holds `tidegate openapi` against a gateway that runs, by schemathesis: once with nothing but what it makes up, once as
# a visitor who waits in a room, and once each at the door of a room whose places have a price and of one that gives a
# network a single place. Exits 0 when nothing that was answered contradicts the document.
#
# Usage: tests/openapi/check.sh TIDEGATE [SCHEMATHESIS]
set -euo pipefail
tidegate=$(realpath "$1")
schemathesis=$(realpath "$(command -v "${2:-schemathesis}")")
cd "$(dirname "$0")"
folder=$(mktemp -d)
gateway=
trap 'exec 2>/dev/null; [ -z "$gateway" ] || kill "$gateway"; rm -rf "$folder"' EXIT

mkdir "$folder/rules"
cat >"$folder/tidegate.yaml" <<'YAML'
listeners: [{ bind: 127.0.0.1:0 }]
admin: { bind: 127.0.0.1:0 }
access_log: { to: 'off' }
threads: 1
rules: [rules/*.yaml]
queue: { prefix: /line, joins: 100000/s, polls: 100000/s, events: { life: 1s } }
YAML
cat >"$folder/rules/hall.yaml" <<'YAML'
rooms:
  hall: { capacity: { visitors: 1 }, claim_within: 1h, abandon_after: 1h, max_waiting: 1000000 }
  dear: { capacity: { visitors: 1 }, challenge: { work: 18 } }
  narrow: { capacity: { visitors: 1 }, max_places_per_network: 1 }
routes:
  - { name: hall, match: { path: /hall }, chain: [waiting_room: { room: hall }, respond: { status: 204 }] }
  - { name: dear, match: { path: /dear }, chain: [waiting_room: { room: dear }, respond: { status: 204 }] }
  - { name: narrow, match: { path: /narrow }, chain: [waiting_room: { room: narrow }, respond: { status: 204 }] }
YAML

"$tidegate" run -c "$folder/tidegate.yaml" 2>"$folder/log" &
gateway=$!
address=
for _ in $(seq 200); do
  address=$(sed -n 's,.*listening on \(http://[0-9.:]*\)$,\1,p' "$folder/log")
  [ -z "$address" ] || break
  sleep 0.05
done
[ -n "$address" ] || { cat "$folder/log" >&2; exit 1; }
"$tidegate" openapi -c "$folder/tidegate.yaml" >"$folder/openapi.json"

# One is inside, and two wait: the last of them is who asks below.
for _ in 1 2 3; do
  ticket=$(curl -fsS -o /dev/null -D - -X POST "$address/line/join?room=hall" \
    | sed -n 's/^set-cookie: \(tidegate-ticket-hall=[^;]*\);.*/\1/ip' | tail -1)
done
[ -n "$ticket" ] || { echo 'joining brought no ticket' >&2; exit 1; }

cp schemathesis.toml "$folder"
cd "$folder"
run() {
  "$schemathesis" --config-file schemathesis.toml run openapi.json --url "$address" --no-color --seed 7 "$@"
}
run --phases coverage,fuzzing --max-examples 40
# Not to leave: then there would be nothing left to ask about.
run --phases coverage,fuzzing --max-examples 15 -H "Cookie: $ticket" --mode positive --exclude-path /line/leave
for room in dear narrow; do
  sed -i "s/^room = .*/room = \"$room\"/" schemathesis.toml
  run --phases coverage,fuzzing --max-examples 10 --include-path /line/join
done
