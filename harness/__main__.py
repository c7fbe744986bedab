"""`python -m harness` is the `flatline` command."""

from harness.cli import main

main()
