"""One node among others: leases, reaping, routing of messages and kicks."""
