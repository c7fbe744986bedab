"""A liveness policy written down for other stacks."""
