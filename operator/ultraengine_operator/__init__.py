"""The Kubernetes operator of UltraEngine."""
