"""`python -m harness` is the `flatline` command."""

from harness.cli.main import main

main()
