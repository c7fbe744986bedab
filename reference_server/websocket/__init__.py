"""The WebSocket port: admission, connections, overload."""
