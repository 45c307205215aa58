#!/usr/bin/env bash
# Gives a task to a node and follows it to its end, with nothing but curl: for supervisors without the aidevops-worker program.
#
# Usage: WORKER_URL=https://worker.example.com WORKER_TOKEN=... dispatch-to-worker.sh OWNER/REPO "PROMPT" [BRANCH]
# Exit code: 0 the task succeeded, 1 it didn't, 2 wrong use, 3 the node is full (429) or stopping (503): try another.
set -euo pipefail

if [ $# -lt 2 ] || [ -z "${WORKER_URL:-}" ] || [ -z "${WORKER_TOKEN:-}" ]; then
    sed -n '2,5p' "$0" | cut -c3- >&2
    exit 2
fi
repo=$1 prompt=$2 branch=${3:-}
id="task-$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')"

# The token goes to curl over its standard input: arguments can be read by everybody on the machine.
request() {
    printf 'header = "Authorization: Bearer %s"\n' "$WORKER_TOKEN" | curl --silent --show-error --config - "$@"
}

quoted() {
    local text=$1
    text=${text//\\/\\\\} text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\r'/\\r} text=${text//$'\t'/\\t}
    printf '"%s"' "$text"
}

body="{\"task_id\": $(quoted "$id"), \"repo\": $(quoted "$repo"), \"prompt\": $(quoted "$prompt")"
[ -z "$branch" ] || body="$body, \"branch\": $(quoted "$branch")"
body="$body}"

# The id makes it safe to ask again: a node that took the task answers 409, and knows it.
for attempt in 1 2 3; do
    status=$(request --output /dev/stderr --write-out '%{http_code}' --max-time 30 \
        --header 'Content-Type: application/json' --data-binary "$body" "$WORKER_URL/dispatch") || status=000
    echo >&2
    case $status in
    202 | 409) break ;;
    429 | 503) exit 3 ;;
    000 | 502 | 504)
        known=$(request --output /dev/null --write-out '%{http_code}' --max-time 30 "$WORKER_URL/workers/$id") || known=000
        [ "$known" != 200 ] || break
        [ "$attempt" != 3 ] || exit 1
        sleep 2
        ;;
    *) exit 1 ;;
    esac
done

request --no-buffer "$WORKER_URL/workers/$id/logs?follow=1" || true
# The log may have ended with its connection: the state is what counts.
while true; do
    answer=$(request --max-time 30 "$WORKER_URL/workers/$id") || answer=''
    case $answer in
    *'"state":"succeeded"'*) exit 0 ;;
    *'"state":"failed"'* | *'"state":"cancelled"'* | *'"state":"timed_out"'*) exit 1 ;;
    esac
    sleep 5
done
