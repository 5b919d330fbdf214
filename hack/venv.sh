#!/usr/bin/env bash
# Makes .venv ready for one or more sets of locked dependencies: runtime, dev, bench.
# Does nothing when it already is: a stamp keeps the checksum of what was installed.
# Usage: hack/venv.sh runtime|dev|bench ...      PYTHON=python3.12 hack/venv.sh dev
set -euo pipefail
cd "$(dirname "$0")/.."

supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "setup: needs Python 3.11 or newer: 'apt-get install python3 python3-venv'," \
    "or name one: 'make run PYTHON=/path/to/python3.12'" >&2
  return 1
}

make_venv() {
  local python
  python=$(find_python)
  echo "setup: making .venv with $("$python" --version)"
  rm -rf .venv
  if ! "$python" -m venv .venv >/tmp/ultraengine-venv.$$ 2>&1; then
    cat /tmp/ultraengine-venv.$$ >&2
    rm -rf .venv /tmp/ultraengine-venv.$$
    echo "setup: this Python has no venv module: 'apt-get install python3-venv'" >&2
    return 1
  fi
  rm -f /tmp/ultraengine-venv.$$
}

# The lock, the project's metadata, the interpreter and this directory (an editable install
# points at it) decide what an environment holds; the compiled parts are made anew when their
# source has changed.
wanted() {
  { cat "requirements/$1.txt" pyproject.toml setup.py; find engine -name '*.c' | sort | xargs cat
    .venv/bin/python --version; pwd; } | sha256sum
}

pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet --no-input "$@"; }

[ -x .venv/bin/python ] && supported .venv/bin/python || make_venv
for set in "$@"; do
  stamp=.venv/ready-$set
  if [ "$(wanted "$set")" = "$(cat "$stamp" 2>/dev/null)" ]; then
    continue
  fi
  echo "setup: installing locked dependencies ($set)"
  # The lock is complete, so nothing is resolved: an older pip would otherwise look at the newest
  # release behind an extra (`coverage[toml]`) and refuse it for having no hash here.
  pip install --no-deps --require-hashes --requirement "requirements/$set.txt"
  find engine -name '*.so' -delete
  pip install --no-deps --no-build-isolation --editable .
  .venv/bin/python -c 'import sys; from ultraengine.compiled import absent; sys.exit(bool(absent()))' ||
    echo "setup: no C compiler or no Python headers: the engine runs in plain Python, slower" \
      "('apt-get install gcc python3-dev', then remove .venv/ready-*)"
  # The type checker remembers which modules were missing.
  rm -rf .mypy_cache
  wanted "$set" >"$stamp"
done
