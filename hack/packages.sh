#!/usr/bin/env bash
# Installs the Debian packages whose programs are missing on this machine.
# Usage: hack/packages.sh test|bench
#   test    a compiler for the compiled parts, the databases that tests start for themselves, and what
#           tests/e2e calls: strace injects errors, FUSE and ext4 images are disks to hurt
#   bench   the servers that `make bench` compares with
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
case ${1:-} in
  test) wanted=(make:make gcc:gcc strace:strace fusermount3:fuse3 mkfs.ext4:e2fsprogs losetup:mount
    pg_lsclusters:postgresql mariadbd:mariadb-server) ;;
  bench) wanted=(psql:postgresql pg_lsclusters:postgresql redis-server:redis-server taskset:util-linux
    mariadbd:mariadb-server mariadb:mariadb-client) ;;
  *) echo "usage: hack/packages.sh test|bench" >&2; exit 2 ;;
esac

missing=()
for entry in "${wanted[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
if [ "$1" = test ]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  python3 -c 'import os, sysconfig
os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || missing+=(python3-dev)
  [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

echo "packages: installing ${missing[*]}"
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get -qq update &&
  "${as_root[@]}" apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "packages: could not install ${missing[*]}" >&2
  exit 1
fi
