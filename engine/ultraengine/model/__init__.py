"""Words shared by every layer: ids, commands, outcomes, replies, errors.

Imports nothing from the rest of the engine and touches nothing outside it.
"""
