# shellcheck shell=bash disable=SC2034,SC2155,SC2016 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# Root file systems from Debian packages, as tar files.

readonly SLIM=(--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*'
  --dpkgopt='path-exclude=/usr/share/locale/*')

debian_system() { # PART PACKAGES OPTION...
  local target=$1 packages=$2
  shift 2
  mkdir -p "$CACHE"
  nice -n 5 mmdebstrap --variant=minbase --include="$packages" "${SLIM[@]}" "$@" "$DEBIAN" "$CACHE/building-$target"
  keep "$CACHE/building-$target" "$target"
}

build_node_base() { debian_system "$NODE_BASE" "$NODE_PACKAGES"; }

# What `python:3.11-slim` is to a Dockerfile: `python` on PATH, pip in new environments, the headers
# that extensions are compiled with, and the certificates that this machine trusts.
build_python_base() {
  debian_system "$PYTHON_BASE" "$PYTHON_PACKAGES" \
    --customize-hook='chroot "$1" sh -c "cd /tmp && apt-get download libpython3.11-dev && dpkg-deb --fsys-tarfile libpython3.11-dev_*.deb | tar -C / -x ./usr/include && rm -f libpython3.11-dev_*.deb"' \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*'
}
