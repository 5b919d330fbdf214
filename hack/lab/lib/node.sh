# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The image of a node: Debian with systemd and containerd, kind's own entrypoint and units (from its Go module),
# and the images of the control plane inside.

readonly NODE_IMAGE=ultraengine-lab/node:$(hash_of "$KUBELAB" "$COREDNS" "$LOCAL_PATH" "$PAUSE" "$NODE_BASE" \
  "$LAB/node" "$LAB/lib/node.sh" "$KIND_VERSION")
readonly COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy)
readonly ETCD_TAG=etcd:3.6.5-0 PAUSE_TAGS=(pause:3.10 pause:3.10.1) COREDNS_TAG=coredns/coredns:v1.12.1
readonly REGISTRY=registry.k8s.io # only a prefix that kubeadm expects; nothing is pulled

node_image() { # prints the image to use; builds one when there is no other
  if [ -n "${KIND_NODE_IMAGE:-}" ]; then
    echo "$KIND_NODE_IMAGE"
  elif docker image inspect "$NODE_IMAGE" >/dev/null 2>&1; then
    echo "$NODE_IMAGE"
  elif docker image inspect "$KIND_PUBLISHED_IMAGE" >/dev/null 2>&1; then
    echo "$KIND_PUBLISHED_IMAGE"
  elif timeout 10 docker manifest inspect "$KIND_PUBLISHED_IMAGE" >/dev/null 2>&1; then
    step "pulling $KIND_PUBLISHED_IMAGE" docker pull "$KIND_PUBLISHED_IMAGE" >&2
    echo "$KIND_PUBLISHED_IMAGE"
  else
    {
      say "no registry answers: the node image is built here"
      need_node_parts
      step "building the node image" build_node_image
    } >&2
    echo "$NODE_IMAGE"
  fi
}

build_node_image() {
  local work
  work=$(mktemp -d "$CACHE/work.XXXXXX")
  kubernetes_image "$work/kubernetes"
  component_images "$work"
  node_system "$work/node"
  cp "$work/images.tar" "$work/node/kind/images.tar"
  tar -C "$work/node" -cf - . | docker import - ultraengine-lab/node-stage:latest
  preload_images
  printf 'FROM ultraengine-lab/node-preloaded:latest\nENV container=docker\nSTOPSIGNAL SIGRTMIN+3\nENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]\n' |
    docker build --quiet --tag "$NODE_IMAGE" -
  rm -rf "$work"
}

kubernetes_image() { # DIRECTORY: one image under the names of all components, so there is one layer
  mkdir -p "$1"
  tar -C "$1" -xf "$(part "$NODE_BASE")" --exclude='./dev/*'
  install -m755 "$(part "$KUBELAB")" "$1/usr/local/bin/kubelab"
  local name
  for name in "${COMPONENTS[@]}" etcd kubectl; do ln -sf kubelab "$1/usr/local/bin/$name"; done
  install -m755 "$(part "$COREDNS")" "$1/usr/local/bin/coredns"
  install -m755 "$(part "$LOCAL_PATH")" "$1/usr/local/bin/local-path-provisioner"
  install -m755 "$(part "$PAUSE")" "$1/pause"
  install -m755 "$LAB/node/lab-cni" "$1/usr/local/bin/lab-cni"
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
  tar -C "$1" -cf - . |
    docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$KUBERNETES_IMAGE"
  tar -C "$1" -cf - pause | docker import -c 'ENTRYPOINT ["/pause"]' - "$REGISTRY/${PAUSE_TAGS[0]}"
}

component_images() { # DIRECTORY: tags and saves what kubeadm asks for
  local name tags=("$KUBERNETES_IMAGE" "$REGISTRY/$ETCD_TAG" "$REGISTRY/$COREDNS_TAG")
  for name in "${COMPONENTS[@]}"; do
    docker tag "$KUBERNETES_IMAGE" "$REGISTRY/$name:$KUBERNETES_VERSION"
    tags+=("$REGISTRY/$name:$KUBERNETES_VERSION")
  done
  docker tag "$KUBERNETES_IMAGE" "$REGISTRY/$ETCD_TAG"
  for name in "${PAUSE_TAGS[@]}"; do
    docker tag "$REGISTRY/${PAUSE_TAGS[0]}" "$REGISTRY/$name"
    tags+=("$REGISTRY/$name")
  done
  printf 'FROM %s\nENTRYPOINT ["/usr/local/bin/coredns"]\n' "$KUBERNETES_IMAGE" |
    docker build --quiet --tag "$REGISTRY/$COREDNS_TAG" -
  docker save -o "$1/images.tar" "${tags[@]}"
}

node_system() { # DIRECTORY
  local name
  mkdir -p "$1"
  tar -C "$1" -xf "$(part "$NODE_BASE")" --exclude='./dev/*'
  kind_files "$1"
  install -m755 "$(part "$KUBELAB")" "$1/usr/bin/kubelab"
  for name in kubelet kubeadm kubectl; do ln -sf kubelab "$1/usr/bin/$name"; done
  mkdir -p "$1/opt/cni/bin" "$1/kind/manifests" "$1/etc/kubernetes/manifests"
  cp "$1"/usr/lib/cni/* "$1/opt/cni/bin/"
  for name in containerd ctr containerd-shim-runc-v2; do ln -sf "/usr/bin/$name" "$1/usr/local/bin/$name"; done
  # Docker may be unable to lower the OOM score of a container; then containerd must not try either.
  sed -i -e 's#pause:3.10"#pause:3.10.1"#' -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    "$1/etc/containerd/config.toml"
  cp "$LAB"/node/default-*.yaml "$1/kind/manifests/"
  echo -n "$KUBERNETES_VERSION" >"$1/kind/version"
  chroot "$1" /bin/bash -eu <<'CHROOT'
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \
  /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/sockets.target.wants/*udev* \
  /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/*
echo ReadKMsg=no >>/etc/systemd/journald.conf
ln -sf "$(command -v systemd || echo /lib/systemd/systemd)" /sbin/init
systemctl enable kubelet.service containerd.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service
ctr oci spec |
  jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
    >/etc/containerd/cri-base.json
CHROOT
}

kind_files() { # DIRECTORY: what kind itself puts into its node images, from its Go module
  local module
  module=$(go mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | jq -r .Dir)
  cp -r --no-preserve=mode "$module/images/base/files/." "$1/"
  chmod 755 "$1"/usr/local/bin/* "$1/kind/bin" "$1"/kind/bin/*
}

preload_images() { # into containerd's store; unpacking would fail on an overlay over an overlay
  docker rm --force ultraengine-lab-preload >/dev/null 2>&1 || true
  docker run --detach --privileged --name ultraengine-lab-preload --entrypoint /bin/sleep \
    ultraengine-lab/node-stage:latest infinity
  docker exec ultraengine-lab-preload bash -euc '
    containerd >/tmp/containerd.log 2>&1 &
    for _ in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
    ctr -n k8s.io images import --no-unpack /kind/images.tar
    kill %1; wait || true
    rm /kind/images.tar'
  docker commit ultraengine-lab-preload ultraengine-lab/node-preloaded:latest
  docker rm --force ultraengine-lab-preload
}
