"""The planner of failovers beside each replica."""
