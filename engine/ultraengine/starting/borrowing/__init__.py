"""How a candidate gets the files of a shard: asked for piece by piece, checked, and written."""
