"""A session's records in Redis."""
