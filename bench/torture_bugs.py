"""How many schedules `flatline torture` needs to find each seeded bug: ``python -m bench.torture_bugs [NAME …]``.

Root, for silence and hosts. A bug that is found costs about 25 seconds a schedule, and one that is not all of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness.torture.torture import torture
from tests.harness.torture.seeded_bugs import BUGS

MOST_SCHEDULES = 8
SHRINK_TRIES = 0


def main() -> None:
    if unknown := set(sys.argv[1:]) - set(BUGS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; NAME is one of {', '.join(BUGS)}")
    for name in sys.argv[1:] or BUGS:
        program = (sys.executable, "-m", "tests.harness.torture.seeded_bugs", name)
        with tempfile.TemporaryDirectory() as root:
            result = torture(
                *(1, 60.0, Path(root), lambda _: None),
                program=program,
                most_schedules=MOST_SCHEDULES,
                most_found=1,
                shrink_tries=SHRINK_TRIES,
            )
        if result.interrupted:
            return
        kinds = sorted({one.kind for found in result.found for one in found.violations})
        print(f"{name:32} {result.schedules:3} schedules: {', '.join(kinds) or 'NOT FOUND'}", flush=True)


if __name__ == "__main__":
    main()
