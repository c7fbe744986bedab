"""Networks that a run makes: silence of one socket, namespaces, a real NAT. Needs root."""
