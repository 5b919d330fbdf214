"""Advice on PostgreSQL."""
