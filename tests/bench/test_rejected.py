"""The bench of rejected suggestions at a tiny size: it runs, and says of a Bloom filter what is no matter of speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rejected import measure
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server


@pytest.mark.real
def test_a_bloom_filter_forgets_nobody_and_every_suggestion_is_compared(tmp_path: Path) -> None:
    with Children() as children, redis_server(None, children, tmp_path) as redis:
        rows = {row.what: row for row in measure(redis.url, tmp_path, users=400, ranges=1000, rounds=1)}
    assert {what.partition(":")[0] for what in rows} == {"bloom", "cache", "geography", "pools"}
    online = [row for what, row in rows.items() if what.startswith("bloom: offline")]
    assert [row.ours for row in online] == [0, 0, 0]
    assert online[0].suggested < online[1].suggested < online[2].suggested > 0.5
