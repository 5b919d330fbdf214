"""Files of the idempotency memory."""
