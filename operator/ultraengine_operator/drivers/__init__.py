"""What waits and touches the world: API server, watches, election, the loop."""
