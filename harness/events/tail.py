"""Follow the log files of a folder while others write them: from a pattern to new complete lines.

Files may appear later and grow at any time; the unfinished last line of each is kept until its end
comes. Does not parse, and does not follow a file that is replaced (event logs only grow).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

__all__ = ["CLIENT_LOGS", "INCIDENT_LOGS", "LogTail"]

CLIENT_LOGS, INCIDENT_LOGS = "client-*.jsonl", "incidents-*.jsonl"
"""Patterns of the logs that are followed in a run's folder of logs."""

# Of one file in one call, so that a long log to catch up with blocks nobody; room for so much is made each time.
_READ_BYTES = 1 << 18


class LogTail:
    """Reads what is appended to the files of a folder that match a pattern, but for those of one name."""

    def __init__(self, folder: Path, pattern: str, but: str = "") -> None:
        self._folder, self._pattern, self._but = folder, pattern, but
        self._files: dict[Path, BinaryIO] = {}
        self._unfinished: dict[Path, bytes] = {}
        self._open = ExitStack()

    def find_files(self) -> None:
        """Take up the files that have appeared since the last call."""
        for path in sorted(self._folder.glob(self._pattern)):
            if path not in self._files and path.name != self._but:
                self._files[path] = self._open.enter_context(path.open("rb"))
                self._unfinished[path] = b""

    def new_lines(self) -> Iterator[bytes]:
        """Yield the lines that were completed since the last call, without their newline."""
        for path, file in self._files.items():
            read = self._unfinished[path] + file.read(_READ_BYTES)
            begin, ends = 0, read.rfind(b"\n") + 1
            self._unfinished[path] = read[ends:]
            while begin < ends:  # one line at a time: after a stall there are thousands
                end = read.index(b"\n", begin)
                yield read[begin:end]
                begin = end + 1

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
