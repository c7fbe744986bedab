"""Policies of the user: known ones (profiles), checked (lint), chosen (tune), written down (emit)."""
