# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The product's images, from the Dockerfiles at the root, on a base image that can be had.

readonly PUBLIC_BASE=python:3.11-slim-bookworm
readonly LAB_BASE=ultraengine-lab/python:$(hash_of "$PYTHON_BASE")

base_image() { # prints the public one where it can be had, else one made from Debian packages
  if docker image inspect "$LAB_BASE" >/dev/null 2>&1; then
    echo "$LAB_BASE"
  elif docker image inspect "$PUBLIC_BASE" >/dev/null 2>&1; then
    echo "$PUBLIC_BASE"
  elif timeout 10 docker manifest inspect "$PUBLIC_BASE" >/dev/null 2>&1; then
    echo "$PUBLIC_BASE"
  else
    need "$PYTHON_BASE" "the Python base image" build_python_base >&2
    step "importing the Python base image" import_python_base >&2
    echo "$LAB_BASE"
  fi
}

import_python_base() {
  docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' -c 'CMD ["python"]' "$(part "$PYTHON_BASE")" "$LAB_BASE"
}

build_image() { # DOCKERFILE TAG BASE
  docker build --file "$ROOT/$1" --build-arg "BASE_IMAGE=$3" --tag "$2" "$ROOT"
}

images() { # builds them and loads them into the nodes
  local base name built=()
  need_daemon
  base=$(base_image)
  for name in engine operator; do
    if [ "$name" = operator ] && [ ! -f "$ROOT/requirements/operator.txt" ]; then
      say "no operator image: requirements/operator.txt is not there yet"
      continue
    fi
    step "building ultraengine/$name:lab" build_image "Dockerfile.$name" "ultraengine/$name:lab" "$base"
    step "listing what ultraengine/$name:lab holds" python3 "$LAB/sbom.py" "ultraengine/$name:lab" "$CACHE/sbom/$name.cdx.json"
    built+=("ultraengine/$name:lab")
  done
  docker images --filter reference='ultraengine/*:lab' --format 'lab: {{.Repository}}:{{.Tag}} {{.Size}}'
  load "${built[@]}"
}
