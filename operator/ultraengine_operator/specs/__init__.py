"""Builders: a view in, an object out; equal views give equal bytes."""
