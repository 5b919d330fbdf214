"""The write-ahead log of one shard: commands before they run, outcomes after (`FORMAT.md`).

Walk: `frame` and `segment` are the bytes, `recovery` decides where a log ends, `survey` reads
a directory with it, `opening` makes it writable, `appender` writes, `reader` reads, `space`
keeps room ahead, `retention` and `archive` take the old end away, `tools` are for people, and
`driver` is the only part with threads.
"""
