"""Ports on a Kubernetes API server, by plain HTTPS: one object needs no client library."""
