"""Reads over MariaDB and MySQL."""
