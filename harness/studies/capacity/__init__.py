"""How many clients does it carry: stepped load, the knee, how nodes scale, and a plan for N users."""
