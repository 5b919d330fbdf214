"""How a copy that lacks what was cut from its leader's log is filled: snapshot first, then log."""
