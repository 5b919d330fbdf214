# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# Versions and the cache.  A part is kept in $CACHE under a name that ends with the hash of all that
# it is made from; a part whose hash is there already is not made again.

readonly KUBERNETES_VERSION=v1.34.4 # 1.35's kubelet refuses control groups of version 1
readonly KIND_VERSION=v0.30.0
readonly KIND_PUBLISHED_IMAGE=kindest/node:v1.34.0
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/ultraengine-lab
readonly CLUSTER=ultraengine
readonly CONTEXT=kind-$CLUSTER
readonly KUBERNETES_IMAGE=localhost/ultraengine-lab/kubernetes:$KUBERNETES_VERSION
readonly DEBIAN=bookworm

# hash_of WORD-OR-FILE...: twelve digits for words and the content of files and folders.
hash_of() {
  local item
  for item in "$@"; do
    if [ -e "$item" ]; then
      find "$item" -type f | LC_ALL=C sort | xargs sha256sum | sed 's# .*/# #'
    else
      echo "$item"
    fi
  done | sha256sum | cut -c1-12
}

# made FILE: whether the part is there.  The ones of older recipes are left for other checkouts.
made() { [ -e "$CACHE/parts/$1" ]; }

# keep TEMPORARY FILE: renamed into place, so that a part is whole or absent.
keep() {
  mkdir -p "$CACHE/parts"
  mv "$1" "$CACHE/parts/$2"
}

part() { echo "$CACHE/parts/$1"; }
