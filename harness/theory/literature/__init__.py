"""Reference values of the literature, each with its paper: what notebooks and tests compare with, no scenario uses."""
