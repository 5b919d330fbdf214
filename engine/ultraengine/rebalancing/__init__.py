"""Slots moved until the map is even: a coordinator of `moving` over the shards' admin API.

    balance.py   which slots go where, what earlier runs have left, how long it still takes
    driver.py    moves one slot after the other, and swaps maps

Nothing is kept: whoever is killed is run again.
"""
