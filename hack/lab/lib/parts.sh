# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The parts of a node: programs from Go modules, root file systems from Debian packages.

readonly KUBELAB=kubelab-$(hash_of "$LAB/kubelab" $KUBERNETES_VERSION)
readonly GITOPS=gitops-$(hash_of "$LAB/gitops")
readonly COREDNS=coredns-$(hash_of "$LAB/coredns")
readonly LOCAL_PATH=local-path-$(hash_of "$LAB/local-path")
readonly KIND=kind-$(hash_of $KIND_VERSION)
readonly PAUSE=pause-$(hash_of "$LAB/node/pause.c")
readonly NODE_PACKAGES=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,kmod,jq,procps,socat,containerd,runc,containernetworking-plugins,ca-certificates,mount,util-linux,hostname,libseccomp2,libfuse2
readonly NODE_BASE=node-base-$(hash_of "$NODE_PACKAGES" $DEBIAN).tar
readonly PYTHON_PACKAGES=python3,python3-venv,ca-certificates,libexpat1,zlib1g
readonly PYTHON_BASE=python-base-$(hash_of "$PYTHON_PACKAGES" $DEBIAN "$LAB/lib/debian.sh").tar

go_build() { # MODULE PACKAGE FLAGS... > part: gentle, because others work on the machine too
  local module=$1 package=$2 target=$3
  shift 3
  command -v go >/dev/null || die "Go is missing: install Go 1.24 or newer and put it on PATH"
  (cd "$LAB/$module" && CGO_ENABLED=0 nice -n 10 go build -p=2 -trimpath -buildvcs=false "$@" -o "$CACHE/building-$target" "$package")
  keep "$CACHE/building-$target" "$target"
}

kubernetes_flags() {
  local version=k8s.io/component-base/version
  echo "-s -w -X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=34" \
    "-X $version.gitCommit=lab -X $version.gitTreeState=clean -X $version.buildDate=2026-01-01T00:00:00Z"
}

build_kubernetes() { go_build kubelab . "$KUBELAB" -ldflags "$(kubernetes_flags)"; }
build_gitops() { go_build gitops . "$GITOPS" -ldflags "-s -w"; }
build_coredns() { go_build coredns . "$COREDNS" -ldflags "-s -w"; }
build_local_path() { go_build local-path github.com/rancher/local-path-provisioner "$LOCAL_PATH" -ldflags "-s -w"; }

build_kind() {
  command -v go >/dev/null || die "Go is missing: install Go 1.24 or newer and put it on PATH"
  mkdir -p "$CACHE/building"
  (cd "$CACHE/building" && GOBIN=$CACHE/building CGO_ENABLED=0 nice -n 10 go install -p=2 -trimpath -ldflags "-s -w" "sigs.k8s.io/kind@$KIND_VERSION")
  keep "$CACHE/building/kind" "$KIND"
}

build_pause() {
  gcc -static -Os -o "$CACHE/building-pause" "$LAB/node/pause.c"
  keep "$CACHE/building-pause" "$PAUSE"
}

need() { # PART WORDS COMMAND: makes the part unless it is there
  made "$1" || step "building $2" "$3"
}

need_kind() {
  need "$KIND" "kind $KIND_VERSION" build_kind
  mkdir -p "$CACHE/bin"
  ln -sf "../parts/$KIND" "$CACHE/bin/kind"
}

need_kubernetes() {
  need "$KUBELAB" "Kubernetes $KUBERNETES_VERSION (8 min on 2 quiet cores, the first time)" build_kubernetes
  mkdir -p "$CACHE/bin"
  ln -sf "../parts/$KUBELAB" "$CACHE/bin/kubelab"
  ln -sf kubelab "$CACHE/bin/kubectl"
}

need_node_parts() {
  need_kubernetes
  need "$COREDNS" CoreDNS build_coredns
  need "$LOCAL_PATH" local-path-provisioner build_local_path
  need "$PAUSE" pause build_pause
  need "$NODE_BASE" "the nodes' Debian system" build_node_base
}

# For stories on a bare API server; where that was not built, they are skipped anyhow.
gitops() {
  [ -e "$CACHE/bin/kubelab" ] || return 0
  need "$GITOPS" "what Flux and Argo CD judge by (2 min of processor time, the first time)" build_gitops
  ln -sf "../parts/$GITOPS" "$CACHE/bin/gitops"
}
