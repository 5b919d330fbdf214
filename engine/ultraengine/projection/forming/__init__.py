"""Forming a batch of what a reading has read.

driver.py   project step by step, so that whoever writes meanwhile gets his turns
"""
