"""Random histories: a nemesis tortures a real cluster, a checker replays what its clients saw (after Jepsen)."""
