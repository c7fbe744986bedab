"""A small WebSocket gateway that notices when its clients die."""
