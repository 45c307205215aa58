#!/bin/bash
# What Cloudron starts, as root and PID 1: mends what a restored backup or a worker may have left of the data folder, and becomes
# the node, as the user cloudron. All else (folders, configuration, token, SSH key, pinned host key, git's identity and credentials)
# is made by the node itself.
set -euo pipefail

readonly data=/app/data program=/app/code/aidevops-worker user=cloudron
umask 077

# A worker may have put a link in the place of something that is made or mended here: such a link is removed, never followed.
for name in .initialized .config config config/worker.json config/repos.json .ssh .ssh/id_ed25519 .ssh/id_ed25519.pub .ssh/known_hosts \
    tasks logs workspace workspace/cache workspace/tasks pulse; do
    if [ -L "$data/$name" ]; then
        echo "==> Removing a link in the place of $data/$name"
        rm -f -- "$data/$name"
    fi
done

# The token first. A restore brings other owners and modes; links themselves get the owner, not what they point to.
if [ -f "$data/config/worker.json" ]; then
    chown --no-dereference "$user:$user" "$data/config/worker.json"
    chmod 0600 "$data/config/worker.json"
fi
find -P "$data" -xdev \( ! -user "$user" -o ! -group "$user" \) -exec chown --no-dereference "$user:$user" {} +
chmod 0700 "$data"

if [ ! -e "$data/.initialized" ]; then
    echo "==> First run: the token is printed below, once, as AUTH TOKEN"
    gosu "$user:$user" touch "$data/.initialized"
fi

# gosu leaves HOME and USER as they were. gh and git find GH_TOKEN in the environment; it is stored nowhere.
export HOME="$data" USER="$user" LOGNAME="$user"
cd /
exec gosu "$user:$user" "$program" serve --host 0.0.0.0 --data-dir "$data"
