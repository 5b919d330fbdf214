# shellcheck shell=bash disable=SC2034,SC2155,SC2016,SC2086 # sourced by hack/lab/lab; hashes that cannot fail; hooks expand in their own shell
# The CRDs and the operator of this checkout.  What is already so is not written; a new image restarts the operator.

operator_manifests() {
  kubectl kustomize "$LAB/operator" |
    sed "s#LAB_IMAGE#$(docker image inspect --format '{{.Id}}' ultraengine/operator:lab)#"
}

apply_operator() {
  operator_manifests | kube apply --server-side --force-conflicts -f -
  rm -rf "$CACHE/discovery" # of the tests' kubectl, which would know the old CRDs for ten minutes
  kube --request-timeout 0 -n ultraengine-system rollout status deployment/ultraengine-operator --timeout 180s
}

operator() {
  healthy || die "the cluster is not healthy: 'hack/lab/lab up' mends it"
  docker image inspect ultraengine/operator:lab >/dev/null 2>&1 || die "there is no operator image: run 'hack/lab/lab images'"
  step "installing the operator" apply_operator
}
