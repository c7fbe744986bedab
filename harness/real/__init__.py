"""The real engine: processes, sockets, faults."""
