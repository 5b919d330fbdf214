"""The gateway of a front, for main and for a cluster's gateway alike."""
