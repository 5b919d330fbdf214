#!/usr/bin/env bash
# Fetches CDNOW_master.txt (69,659 purchases of 23,570 customers) and prints where it is.
# It is part of the Python package lifetimes 0.11.3 (MIT licence); the package is checked by
# its hash, only this file is taken out of it, and nothing is installed.
# Usage: hack/cdnow.sh [DIRECTORY]      (default: the user's cache directory)
set -euo pipefail

readonly PACKAGE=lifetimes==0.11.3
readonly PACKAGE_SHA256=261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8
readonly TABLE_SHA256=eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef

directory=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ultraengine}
table=$directory/CDNOW_master.txt
python=$(dirname "$0")/../.venv/bin/python
[ -x "$python" ] || python=python3

has_hash() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

if ! has_hash "$table" "$TABLE_SHA256"; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "$PACKAGE --hash=sha256:$PACKAGE_SHA256" >"$work/requirements.txt"
  "$python" -m pip --disable-pip-version-check --quiet --no-input download --no-deps \
    --only-binary :all: --require-hashes --requirement "$work/requirements.txt" --dest "$work" >&2
  "$python" - "$work" <<'PY'
import pathlib
import sys
import zipfile

work = pathlib.Path(sys.argv[1])
(wheel,) = work.glob("*.whl")
content = zipfile.ZipFile(wheel).read("lifetimes/datasets/CDNOW_master.txt")
(work / "CDNOW_master.txt").write_bytes(content)
PY
  if ! has_hash "$work/CDNOW_master.txt" "$TABLE_SHA256"; then
    echo "cdnow: the table is not the expected one" >&2
    exit 1
  fi
  mkdir -p "$directory"
  mv "$work/CDNOW_master.txt" "$table"
fi
echo "$table"
