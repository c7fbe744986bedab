"""What the ledger says: audit of consistency, analytics of its users."""
