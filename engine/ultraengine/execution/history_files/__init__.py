"""Files of the history store."""
