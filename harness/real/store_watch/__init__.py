"""The store watch: a process that polls Redis and says when records went."""
