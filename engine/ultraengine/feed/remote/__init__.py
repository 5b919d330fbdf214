"""The feed of an engine elsewhere, over HTTP."""
