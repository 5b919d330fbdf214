"""Carrying out what `projection.sets` has planned.

driver.py   looks at a target's sets and requests, and acts
"""
