"""What a replica says of itself and of the others: roles, positions, lag, the last failover."""
