#!/usr/bin/env bash
# Segment's own clients against a server of ours: what they send arrives, and exactly once, however often it
# is sent and although the server is restarted in between. Says what it checked; fails where a check does.
#
# Needs node, npm, python3 with venv, and the registries of npm and PyPI. PUNCHLINE_BIN names the binary;
# target/debug/punchline if it is not set.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
punchline="${PUNCHLINE_BIN:-$target/debug/punchline}"
tools="$target/segment-test"
work="$(mktemp -d)"
server=

finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# The committed lock and the pinned requirements, installed apart from the source.
mkdir -p "$tools"
cp "$here"/{package.json,package-lock.json,messages.json,sdk.mjs,sdk.py,check.py,requirements.txt} "$tools"
(cd "$tools" && npm ci --silent --no-audit --no-fund --ignore-scripts)
[ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"

start() {
    "$punchline" serve --dev --data-dir "$work/data" --set server.grpc_bind=127.0.0.1:0 \
        --set server.http_bind=127.0.0.1:0 --set server.metrics_bind=127.0.0.1:0 \
        --set ingest.rate_limit_http_per_minute=0 >"$work/out" 2>"$work/log" &
    server=$!
    local i
    for i in $(seq 300); do
        if grep -q '^  write key ' "$work/log"; then break; fi
        if ! kill -0 "$server" 2>/dev/null; then cat "$work/log" >&2; exit 1; fi
        sleep 0.1
    done
    http="$(sed -n 's/^  HTTP  *\([^ ]*\) .*/\1/p' "$work/log")"
    metrics="$(sed -n 's/^  HTTP .* metrics  *\(.*\)$/\1/p' "$work/log")"
    write_key="$(sed -n 's/^  write key  *\([^ ]*\) .*/\1/p' "$work/log")"
    PUNCHLINE_ENDPOINT="http://$(sed -n 's/^  HTTP .* gRPC  *\([^ ]*\) .*/\1/p' "$work/log")"
    export PUNCHLINE_ENDPOINT PUNCHLINE_TOKEN=dev-operator PUNCHLINE_ADVERTISER=1000000001
}

stop() {
    kill "$server"
    wait "$server" || true
    server=
}

# Each client sends everything, <times> times.
send() {
    local key="$1" i
    for i in $(seq "$2"); do
        node "$tools/sdk.mjs" "$http" "$key" || return 1
        # Every second time compressed.
        "$tools/venv/bin/python" "$tools/sdk.py" "$http" "$key" $([ $((i % 2)) = 1 ] || echo gzip) || return 1
    done
}

check() {
    "$tools/venv/bin/python" "$tools/check.py" "$punchline" "$metrics" "$1"
}

start
echo "Segment's clients, first run, at $http"
send "$write_key" 1
check 1
echo "again, twice"
send "$write_key" 2
check 3
echo "again, after a restart"
stop
start
send "$write_key" 2
check 2
echo "with a wrong write key"
if send wrong-write-key 1 2>"$work/wrong"; then
    echo "  FAULT  the client was not told" && exit 1
fi
grep -qi 'unauthorized\|401' "$work/wrong" || { cat "$work/wrong"; exit 1; }
echo "  ok     the client is told: $(grep -i -m1 'unauthorized\|401' "$work/wrong")"
echo "a write key of another tenant"
other="$("$punchline" --environment staging --output json credentials issue --write-key 2>/dev/null |
    sed -n 's/.*"api_key": "\(.*\)".*/\1/p')"
send "$other" 1
# Its strangers are counted with ours: twice since the restart, and once now.
check 3
"$punchline" --environment staging --output json events read --limit 10000 | grep -c '"type": "segment.page_scrolled"' >"$work/staging" || true
[ "$(cat "$work/staging")" = 120 ] || { echo "  FAULT  staging has $(cat "$work/staging") instead of 120"; exit 1; }
echo "  ok     all of it is there and nothing here"
stop
"$punchline" verify --data-dir "$work/data" >/dev/null && echo "  ok     the journal verifies"
