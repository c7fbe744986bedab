"""The durable table of sessions."""
