#!/usr/bin/env bash
# Regenerates requirements/*.txt from pyproject.toml: exact versions with hashes, for every
# platform that Python >= 3.11 runs on.  The build backend is locked too, because the project is
# installed without build isolation (an isolated build would fetch it unlocked).
# Usage: hack/lock.sh [extra arguments of uv pip compile, e.g. --upgrade-package aiohttp]
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
readonly UV_VERSION=0.13.8
if ! "$python" -m uv --version >/dev/null 2>&1; then
  "$python" -m pip install --quiet "uv==$UV_VERSION"
fi

build_requires() {
  "$python" - <<'PY'
import pathlib
import tomllib

table = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
print("\n".join(table["build-system"]["requires"]))
PY
}

# compile NAME [ARGUMENT...]: writes requirements/NAME.txt, keeping the versions that are in it.
compile() {
  local target=requirements/$1.txt
  shift
  build_requires | "$python" -m uv pip compile pyproject.toml - \
    --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
    --custom-compile-command "make lock" --output-file "$target" "$@" >/dev/null
  echo "lock: $target ($(grep -c '^[a-z]' "$target") packages)"
}

mkdir -p requirements
compile runtime "$@"
compile image --extra postgres --extra mysql --extra s3 --constraint requirements/runtime.txt "$@"
compile operator --extra operator --constraint requirements/runtime.txt "$@"
# boto3 declares python-dateutil < 3 and kubernetes >= 3. No image has both; where tests have, boto3 runs with the newer
# one, of which it uses the parser and the time zones.
compile dev --extra dev --extra tracing --constraint requirements/runtime.txt \
  --override <(echo "python-dateutil>=3") "$@"
compile bench --extra bench --constraint requirements/runtime.txt --constraint requirements/dev.txt "$@"
