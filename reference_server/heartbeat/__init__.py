"""All heartbeats of a process from one timer."""
