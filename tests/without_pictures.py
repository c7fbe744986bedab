"""The `flatline` command but for the figures of its reports: `python -m tests.without_pictures run …`.

They take as long as a short run itself, and most tests do not look at them.
"""

from __future__ import annotations

from unittest.mock import patch

from harness.__main__ import main

if __name__ == "__main__":
    with patch("reports.build.draw", lambda *_: {}):
        main()
