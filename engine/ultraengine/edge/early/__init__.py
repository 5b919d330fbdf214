"""The doors of a process that is not ready to serve yet."""
