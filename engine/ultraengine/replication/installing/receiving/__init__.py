"""The side of the copy that is filled."""
