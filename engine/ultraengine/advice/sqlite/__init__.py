"""Advice on SQLite."""
