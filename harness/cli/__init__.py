"""Commands of the `flatline` command line, by what they are about. They print; they decide nothing."""
