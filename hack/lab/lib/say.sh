# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# What the lab says: each long step prints a line when it begins, and one with its time when it ends.

say() { echo "lab: $*"; }

die() { # MESSAGE...: what is wrong, and what to do
  echo "lab: $*" >&2
  exit 1
}

# step NAME COMMAND...: output goes to a file, which is shown only when the command fails.  The
# command runs in a shell of its own, so that `set -e` holds inside it.
step() {
  local name=$1 begun=$SECONDS code=0 output
  shift
  mkdir -p "$CACHE/logs"
  output=$CACHE/logs/${name//[^a-zA-Z0-9]/-}.log
  say "$name ..."
  set +e
  (set -e; "$@") >"$output" 2>&1
  code=$?
  set -e
  if [ "$code" -ne 0 ]; then
    tail -n 30 "$output" >&2
    die "$name failed after $((SECONDS - begun)) s; all of its output is in $output"
  fi
  say "$name: $((SECONDS - begun)) s"
}
