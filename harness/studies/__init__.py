"""Studies: many runs for one answer (capacity, claims, comparison, replication, calibration)."""
