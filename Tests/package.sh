#!/usr/bin/env bash
# The package as Cloudron runs it, without Cloudron: a root folder like the image's, start.sh as PID 1 of a PID namespace of its own,
# read-only but /app/data, /run and /tmp, the program as the user cloudron. Usage: Tests/package.sh PROGRAM (static, release).
# Needs root, namespaces (unshare), gosu and git; without them it says so and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")

skip() {
    echo "skipped: the package needs $1 to be run here"
    exit 0
}
[ "$(id -u)" = 0 ] || skip root
for needed in unshare gosu git curl python3; do
    PATH="$PATH:/usr/sbin" command -v "$needed" > /dev/null || skip "$needed"
done
unshare --mount --pid --fork true 2> /dev/null || skip namespaces

top=$(mktemp -d /tmp/aidevops-package.XXXXXX)
root=$top/root
outer='' # unshare's own process; its child is PID 1
cleanup() {
    [ -z "$outer" ] || kill -KILL "$outer" 2> /dev/null || true
    rm -rf "$top"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*" >&2
    tail -n 30 "$top/log" >&2
    exit 1
}
ok() { echo "  ok: $*"; }

# ---- the image ----
mkdir -p "$root"/{usr,proc,dev,run,tmp,app/code,app/data,app/agent,srv/remote/o} "$top/data"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
cp -r /etc "$root/etc" 2> /dev/null || true
echo 'cloudron:x:808:808::/home/cloudron:/bin/bash' >> "$root/etc/passwd"
echo 'cloudron:x:808:' >> "$root/etc/group"
install -m 0755 "$program" "$root/app/code/aidevops-worker"
install -m 0755 start.sh "$root/app/code/start.sh"
cat > "$root/app/agent/agent.sh" << 'X'
cat > /dev/null
echo "oom $(cat /proc/self/oom_score_adj)"
case $AIDEVOPS_TASK_ID in long*) echo started; sleep "${LONG:-600}";; esac
cat /app/data/config/worker.json && echo ESCAPED
id -un; echo change >> README.md; git commit -qam "Change it" && git push -q origin HEAD && echo TASK_COMPLETE
X
git init -q --bare -b main "$root/srv/remote/o/r.git"
git init -q -b main "$top/seed"
echo '# Seed' > "$top/seed/README.md"
git -C "$top/seed" add .
git -C "$top/seed" -c user.name=Test -c user.email=test@example.com commit -qm Begin
git -C "$top/seed" push -q "$root/srv/remote/o/r.git" main
chown -R 808:808 "$root/srv/remote"
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# What the container's runtime does, within the new namespaces.
cat > "$top/enter.sh" << 'X'
mount --make-rprivate /
mount --rbind "$ROOT" "$ROOT"
mount --bind -o ro /usr "$ROOT/usr" && mount -o remount,bind,ro "$ROOT/usr"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/dev"
for device in null zero full random urandom tty; do touch "$ROOT/dev/$device" && mount --bind "/dev/$device" "$ROOT/dev/$device"; done
mkdir "$ROOT/dev/shm" && mount -t tmpfs tmpfs "$ROOT/dev/shm"
mount -t tmpfs tmpfs "$ROOT/run" && mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount --bind "$DATA" "$ROOT/app/data"
mount --bind "$ROOT/srv" "$ROOT/srv"
mount -o remount,bind,ro "$ROOT"
exec chroot "$ROOT" /app/code/start.sh
X

# ---- running it ----
boot() {
    : > "$top/log"
    local began
    began=$(date +%s%N)
    env -i CLOUDRON=1 CLOUDRON_PROXY_IP=172.18.0.1 PORT="$port" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin HOME=/root \
        GH_TOKEN=ghp_packagetest0123456789 ANTHROPIC_API_KEY=sk-ant-packagetest ROOT="$root" DATA="$top/data" \
        unshare --mount --pid --fork --kill-child bash -eu "$top/enter.sh" >> "$top/log" 2>&1 &
    outer=$!
    for _ in $(seq 1 400); do
        if curl -sf "http://127.0.0.1:$port/health" > /dev/null 2>&1; then
            echo "  boot to the first /health: $((($(date +%s%N) - began) / 1000000)) ms"
            first=$(pgrep -P "$outer")
            return 0
        fi
        kill -0 "$outer" 2> /dev/null || fail "it ended at once"
        sleep 0.02
    done
    fail "/health never answered"
}

stop() {
    local began
    began=$(date +%s%N)
    kill -TERM "$first"
    wait "$outer" || fail "it ended with $?"
    local took=$((($(date +%s%N) - began) / 1000000))
    outer=''
    [ "$took" -lt 10000 ] || fail "stopping took $took ms"
    echo "  stopped within $took ms"
}

ask() { curl -s -H "Authorization: Bearer $token" "http://127.0.0.1:$port$1" "${@:2}"; }
await() { # PATH TEXT
    for _ in $(seq 1 600); do
        ask "$1" | grep -qF -- "$2" && return 0
        sleep 0.05
    done
    fail "$2 never came at $1: $(ask "$1" | tail -n 5)"
}
configured_token() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["dispatch"]["auth_token"])' "$top/data/config/worker.json"; }
configure() {
    python3 - "$top/data/config/worker.json" "$1" << 'X'
import json, sys
path, long = sys.argv[1:]
settings = json.load(open(path))
settings["agent"] = {"preset": "custom", "command": ["/bin/sh", "/app/agent/agent.sh"], "env": {"LONG": long}}
settings["git"] = {"base_url": "file:///srv/remote"}
settings["worker"]["ram_per_worker_mb"] = 1
json.dump(settings, open(path + ".edit", "w"))
X
    chown 808:808 "$top/data/config/worker.json.edit"
    mv "$top/data/config/worker.json.edit" "$top/data/config/worker.json"
}

echo "==> First boot, with an empty /app/data"
boot
grep -q 'First run' "$top/log" || fail "the first run isn't told"
[ "$(grep -c 'AUTH TOKEN: ' "$top/log")" = 1 ] || fail "the token isn't printed once"
grep -q 'SSH PUBLIC KEY: ssh-ed25519 ' "$top/log" || fail "the SSH key isn't printed"
token=$(configured_token)
grep -qF "AUTH TOKEN: $token" "$top/log" || fail "another token is printed than is stored"
grep -q '^github.com ssh-ed25519 ' "$top/data/.ssh/known_hosts" || fail "GitHub's host key isn't pinned"
[ "$(ps -o user:20= -o pid= -p "$first" | awk '{print $1}')" = 808 ] || fail "the node doesn't run as cloudron"
[ "$(awk '/^NSpid:/{print $NF}' "/proc/$first/status")" = 1 ] || fail "the node isn't PID 1"
[ -z "$(find "$top/data" ! -user 808 -print -quit)" ] || fail "something isn't cloudron's"
[ -z "$(find "$top/data" -perm /077 ! -type l -print -quit)" ] || fail "open to others: $(find "$top/data" -perm /077 -print -quit)"
ok "token, SSH key, pinned host, owner and modes; PID 1 as cloudron"

configure 600
await /status '"status":"ok"'
for _ in $(seq 1 100); do
    if grep -q 'The configuration has changed' "$top/log"; then break; fi
    sleep 0.05
done
ask /dispatch -d '{"repo": "o/r", "prompt": "Do it.", "task_id": "first"}' | grep -q '"status":"dispatched"' || fail "no dispatch"
await /workers/first/logs '[EXIT:0]'
ask /workers/first/logs | grep -qx cloudron || fail "the agent isn't cloudron: $(ask /workers/first/logs)"
ask /workers/first/logs | grep -qx 'oom 500' || fail "the kernel wouldn't kill workers first"
! ask /workers/first/logs | grep -q ESCAPED || fail "the agent read worker.json"
git --git-dir "$root/srv/remote/o/r.git" -c safe.directory='*' log -1 --format=%s | grep -qx 'Change it' || fail "nothing was pushed"
ok "a real task: clone, agent in its sandbox, commit, push"

ask /dispatch -d '{"repo": "o/r", "prompt": "Do it.", "task_id": "long"}' > /dev/null
await /workers/long/logs started
cp -a "$top/data" "$top/backup" # as Cloudron does, while it runs
stop

echo "==> Second boot"
boot
[ "$(configured_token)" = "$token" ] || fail "the token has changed"
! grep -q 'AUTH TOKEN\|First run\|SSH PUBLIC' "$top/log" || fail "secrets are printed again"
ask /workers/first | grep -q '"state":"succeeded"' || fail "the first task is forgotten"
ask /workers/first/logs | grep -q 'TASK_COMPLETE' || fail "its log is gone"
await /workers/long/logs 'attempt=2'
ok "token, tasks and logs are kept, and what ran goes on"
stop

echo "==> Restore of a copy that was taken in the middle of a task"
rm -rf "$top/data"
cp -a "$top/backup" "$top/data"
chown -R 0:0 "$top/data"
find "$top/data" -type d -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
configure 0
boot
[ "$(configured_token)" = "$token" ] || fail "the token has changed"
await /workers/long '"state":"succeeded"'
for file in config/worker.json .ssh/id_ed25519; do
    [ "$(stat -c '%u:%a' "$top/data/$file")" = 808:600 ] || fail "$file is $(stat -c '%u:%a' "$top/data/$file")"
done
for folder in . config tasks logs workspace .ssh; do
    [ "$(stat -c '%u:%a' "$top/data/$folder")" = 808:700 ] || fail "$folder is $(stat -c '%u:%a' "$top/data/$folder")"
done
ok "the task went on to its end; owners and modes are mended"
stop

echo "==> Links that a worker could have planted"
victim=$top/root/srv/victim
mkdir "$victim"
echo secret > "$victim/file"
chmod 0640 "$victim/file"
before=$(stat -c '%u:%g:%a' "$victim" "$victim/file")
for name in .initialized .config config/repos.json .ssh logs pulse workspace/cache; do
    rm -rf "${top:?}/data/$name"
    ln -s /srv/victim "$top/data/$name"
done
cp "$top/data/config/worker.json" "$top/kept"
rm "$top/data/config/worker.json"
ln -s /srv/victim/file "$top/data/config/worker.json"
ln -s /srv/victim/file "$top/data/workspace/tasks/planted"
boot
[ "$(stat -c '%u:%g:%a' "$victim" "$victim/file")" = "$before" ] || fail "what a link points to was changed"
[ "$(cat "$victim/file") $(ls "$victim")" = 'secret file' ] || fail "something was written through a link"
for name in config/worker.json .ssh logs; do [ ! -L "$top/data/$name" ] || fail "$name is still a link"; done
ok "links are removed, never followed"
stop

echo "==> Upgrade of an earlier version's data"
rm -rf "$top/data"
cp -r Tests/package/earlier "$top/data"
boot
token=$(configured_token)
[ "$token" = earlier0earlier0earlier0earlier0 ] || fail "the token has changed"
ask /workers/old | grep -q '"state":"succeeded"' || fail "the old task is forgotten: $(ask /workers/old)"
ask /workers/old/logs | grep -q 'an earlier line' || fail "its log is gone"
ask /dispatch -d '{"repo": "o/r", "prompt": "Do it.", "task_id": "new"}' > /dev/null
await /workers/new '"state":"succeeded"'
grep -q '"kept"' "$top/data/config/worker.json" || fail "a key was dropped"
ok "its tasks, logs, token and settings are there, and new tasks run"
stop
echo "the package runs as Cloudron would run it"
