# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The cluster: made once, mended when its containers were stopped, made anew when it does not come back.

readonly READY_S=120
readonly KUBECONFIG_FILE=$CACHE/kubeconfig
# As cluster.yaml says it.
readonly POD_SUBNET=10.244.0.0/16 SERVICE_SUBNET=10.96.0.0/16

kube() { KUBECONFIG=$KUBECONFIG_FILE kubectl --context "$CONTEXT" --request-timeout 10s "$@"; }

cluster_nodes() { docker ps --all --filter "label=io.x-k8s.kind.cluster=$CLUSTER" --format '{{.Names}}'; }

need_kubectl() { # the one of our own build, or the one inside the published node image
  mkdir -p "$CACHE/bin"
  if made "$KUBELAB"; then
    need_kubernetes
  else
    docker cp "$CLUSTER-control-plane:/usr/bin/kubectl" "$CACHE/bin/kubectl"
  fi
}

healthy() {
  [ -n "$(cluster_nodes)" ] && kube get --raw /readyz >/dev/null 2>&1 &&
    [ "$(kube get nodes --no-headers 2>/dev/null | awk '$2 == "Ready"' | wc -l)" -eq 3 ]
}

wait_healthy() {
  local until=$((SECONDS + READY_S))
  until healthy; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 1
  done
}

create_cluster() { # IMAGE
  kind create cluster --name "$CLUSTER" --image "$1" --config "$LAB/cluster.yaml" --wait 120s --kubeconfig "$KUBECONFIG_FILE"
}

start_nodes() {
  local node
  for node in $(cluster_nodes); do
    docker unpause "$node" 2>/dev/null || true
    docker start "$node"
  done
  kind export kubeconfig --name "$CLUSTER" --kubeconfig "$KUBECONFIG_FILE"
  need_kubectl
  wait_healthy
}

delete_cluster() { kind delete cluster --name "$CLUSTER" --kubeconfig "$KUBECONFIG_FILE"; }

up() {
  local image
  need_daemon
  need_kind
  if [ -n "$(cluster_nodes)" ]; then
    if healthy || (step "starting the stopped cluster" start_nodes); then
      tell_up
      return
    fi
    say "the old cluster does not come back; it is replaced"
    step "deleting the old cluster" delete_cluster
  fi
  image=$(node_image)
  step "creating the cluster from $image" create_cluster "$image"
  need_kubectl
  wait_healthy || die "the nodes are not Ready after $READY_S s: look at 'hack/lab/lab logs DIR'"
  tell_up
}

# What is sent to a pod that is gone, or to a Service while a node's proxy changes its rules, would leave
# by the default route, and on some networks a stranger answers it. It is refused where it leaves the nodes.
fence() {
  local bridge subnet
  [ "$(id -u)" -eq 0 ] && iptables -S DOCKER-USER >/dev/null 2>&1 || return 0
  bridge=br-$(docker network inspect kind --format '{{slice .Id 0 12}}')
  for subnet in "$POD_SUBNET" "$SERVICE_SUBNET"; do
    set -- DOCKER-USER -i "$bridge" ! -o "$bridge" -d "$subnet" -j REJECT
    iptables -w -C "$@" 2>/dev/null || iptables -w -I "$@"
  done
}

tell_up() {
  fence
  say "up: export KUBECONFIG=$KUBECONFIG_FILE (context $CONTEXT); kubectl is $CACHE/bin/kubectl"
}

status() {
  daemon_answers || { say "down: no Docker daemon answers"; return 1; }
  [ -n "$(cluster_nodes)" ] || { say "down: there is no cluster"; return 1; }
  docker ps --all --filter "label=io.x-k8s.kind.cluster=$CLUSTER" --format 'lab: {{.Names}} {{.Status}}'
  healthy || { say "not healthy: 'hack/lab/lab up' mends it"; return 1; }
  tell_up
}

down() {
  if daemon_answers && [ -n "$(cluster_nodes)" ]; then
    need_kind
    step "deleting the cluster" delete_cluster
  else
    say "there is no cluster"
  fi
  [ "${1:-}" != --all ] || stop_daemon
}

load() { # kind asks a node what it holds with a program that a node of ours has not: each keeps a note
  local image id node lacking
  [ "$#" -gt 0 ] || die "usage: hack/lab/lab load IMAGE..."
  for image in "$@"; do
    id=$(docker image inspect --format '{{.Id}}' "$image")
    lacking=()
    for node in $(cluster_nodes); do
      holds "$node" "$image" "$id" || lacking+=("$node")
    done
    [ "${#lacking[@]}" -eq 0 ] || step "loading $image" load_image "$image" "$id" "${lacking[@]}"
  done
}

note_of() { echo "/var/lib/ultraengine-lab-${1//[^a-zA-Z0-9]/-}"; } # IMAGE

holds() { # NODE IMAGE ID: whether it was loaded, and kubelet has not cleared it away since
  docker exec "$1" sh -c "grep -qs $3 $(note_of "$2") && ctr -n k8s.io images ls -q | grep -q /$2\$"
}

load_image() { # IMAGE ID NODE...
  local image=$1 id=$2 nodes node
  shift 2
  nodes=$(IFS=,; echo "$*")
  kind load docker-image --name "$CLUSTER" --nodes "$nodes" "$image"
  for node in "$@"; do
    docker exec "$node" sh -c "echo $id >$(note_of "$image")"
  done
}

logs() {
  [ "$#" -eq 1 ] || die "usage: hack/lab/lab logs DIRECTORY"
  step "collecting logs in $1" kind export logs --name "$CLUSTER" "$1"
}
