"""The event log: read, merge, follow, and put in order. Knows no statistics."""
