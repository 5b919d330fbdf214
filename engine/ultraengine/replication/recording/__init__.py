"""Reads and swaps of the record, one after the other."""
