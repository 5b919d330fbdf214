"""Reads over a SQLite file."""
