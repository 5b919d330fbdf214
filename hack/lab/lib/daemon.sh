# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The packages that the lab needs, and a Docker daemon: the one that runs, or one of our own.

readonly DAEMON_PID=$CACHE/dockerd.pid
readonly DAEMON_LOG=$CACHE/dockerd.log
PATH=$CACHE/bin:$PATH:/usr/sbin:/sbin

need_packages() {
  local entry missing=() as_root=()
  for entry in docker:docker.io dockerd:docker.io containerd:containerd runc:runc mmdebstrap:mmdebstrap \
    iptables:iptables jq:jq gcc:gcc; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
  step "installing ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" apt-get -qq install --yes --no-install-recommends "$@" libc6-dev
}

daemon_answers() { timeout 10 docker version >/dev/null 2>&1; }

need_daemon() {
  daemon_answers && return
  need_packages
  [ "$(id -u)" -eq 0 ] || die "no Docker daemon answers, and starting one needs root: start Docker, or run this as root"
  step "starting dockerd" start_daemon
}

all_capabilities() { # whether the bounding set holds all that this kernel knows
  local last
  last=$(cat /proc/sys/kernel/cap_last_cap)
  [ $((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status))) -eq $(((1 << (last + 1)) - 1)) ]
}

start_daemon() {
  local arguments=()
  if ! all_capabilities; then
    arguments=(--add-runtime "lab=$LAB/node/lab-runc" --default-runtime lab)
    mkdir -p "$CACHE/bin"
    install -m755 "$LAB/node/lab-runc" "$CACHE/bin/lab-runc"
    arguments=(--add-runtime "lab=$CACHE/bin/lab-runc" --default-runtime lab)
  fi
  # A daemon that was killed leaves its pid files, and a new one refuses to start over them.
  running_as dockerd /var/run/docker.pid || rm -f /var/run/docker.pid
  running_as containerd /var/run/docker/containerd/containerd.pid || rm -f /var/run/docker/containerd/containerd.pid
  (
    # What the caller has open, a lock on a file perhaps, is not the daemon's to keep.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      [ "$fd" -le 2 ] || exec {fd}>&-
    done
    exec setsid nohup dockerd "${arguments[@]}" >"$DAEMON_LOG" 2>&1 </dev/null
  ) &
  echo $! >"$DAEMON_PID"
  for _ in $(seq 120); do
    daemon_answers && return
    kill -0 "$(cat "$DAEMON_PID")" 2>/dev/null || { tail -n 20 "$DAEMON_LOG"; return 1; }
    sleep 0.5
  done
  tail -n 20 "$DAEMON_LOG"
  return 1
}

running_as() { # PROGRAM PIDFILE
  [ -f "$2" ] && [ "$(cat "/proc/$(cat "$2")/comm" 2>/dev/null)" = "$1" ]
}

stop_daemon() {
  if ! running_as dockerd "$DAEMON_PID"; then
    say "the lab started no dockerd that still runs; nothing is stopped"
    return
  fi
  kill "$(cat "$DAEMON_PID")"
  for _ in $(seq 60); do
    running_as dockerd "$DAEMON_PID" || { rm -f "$DAEMON_PID"; say "dockerd stopped"; return; }
    sleep 0.5
  done
  die "dockerd (pid $(cat "$DAEMON_PID")) has not ended within 30 s; see $DAEMON_LOG"
}

# able: whether this machine can run what nodes are, a privileged container.  Exit code 3 says that it cannot, with
# the reason; a lab that fails after this has a fault of its own.
able() {
  local why
  why=$( (need_daemon && step "running a privileged container" run_nothing) 2>&1) && return
  echo "$why" >&2
  say "no privileged container can run on this machine (reason above), so it can have no cluster" >&2
  exit 3
}

run_nothing() {
  local work
  work=$(mktemp -d "$CACHE/able.XXXXXX")
  echo 'int main(void) { return 0; }' | gcc -static -Os -x c -o "$work/nothing" -
  tar -C "$work" -cf - nothing | docker import - ultraengine-lab/nothing:latest
  rm -rf "$work"
  docker run --rm --privileged --network none ultraengine-lab/nothing:latest /nothing
}
