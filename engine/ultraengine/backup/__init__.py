"""Copies of a shard in an object store, and new directories from them (`docs/backup.md`).

`taking` copies, `choosing` and `reading` find what a position needs, `restoring` writes it;
`driver` does the first of them while the shard runs.
"""
