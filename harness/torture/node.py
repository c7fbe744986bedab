"""``python -m harness.torture.node --config FILE``: one gateway node whose wall clock the nemesis can move.

The gateway's own program, with the time of day taken from the kernel's plus what the eight bytes of ``FILE.clock`` say
(a float, seconds). Only ``time.time`` and ``time.time_ns`` follow: timers run on the monotonic clock, as everywhere.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["clock_file", "move_clock", "run_node"]


def clock_file(config: Path) -> Path:
    """Where a node's clock is moved."""
    return config.with_suffix(".clock")


def move_clock(config: Path, offset_s: float) -> None:
    """Set how far the clock of the node with this configuration is ahead."""
    path = clock_file(config)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(struct.pack("d", offset_s))


def run_node(prepare: Callable[[], None] = lambda: None) -> None:
    """Run a gateway with a clock that can be moved; ``prepare`` is called just before it begins."""
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    with clock_file(config).open("rb") as file:
        offset = memoryview(mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)).cast("d")
    true_ns = time.time_ns
    time.time_ns = lambda: true_ns() + round(1e9 * offset[0])
    time.time = lambda: time.time_ns() / 1e9

    from reference_server.__main__ import main  # after that: some modules take `time` by name

    prepare()
    main()


if __name__ == "__main__":
    run_node()
