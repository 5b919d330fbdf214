"""Reads over PostgreSQL."""
