"""The start of a process that keeps one of several copies."""
