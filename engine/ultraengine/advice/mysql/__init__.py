"""Advice on MariaDB and MySQL."""
