"""Child processes of a run: gateways, Redis, and how all of them end."""
