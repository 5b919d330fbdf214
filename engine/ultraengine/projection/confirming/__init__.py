"""Telling the engine what is durable in a target, so that its log may be cut.

driver.py   the task that confirms the slots
"""
