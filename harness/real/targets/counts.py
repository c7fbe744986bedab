"""The count witness: how many connections a server says it has, over HTTP as JSON or as Prometheus' text.

From a URL to (time, number) pairs. A thread of its own asks, for a server may take long to answer, and the observer's
looks at the kernel must not wait for that. A count pairs no clients: it is a curve.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.request import ProxyHandler, build_opener

import orjson
from prometheus_client.parser import text_string_to_metric_families

from scenarios.target import CountWitness, at_json_path, filled

__all__ = ["Counts", "count_in_json", "count_in_metrics"]

_ANSWER_DEADLINE_S = 2.0
_MOST_BYTES = 8 << 20
_LABEL = re.compile(r'(\w+)\s*=\s*"([^"]*)"')


class Counts:
    """Asks a server every so often, until it is closed.

    Args:
        witness: what the target file says.
        values: for the placeholders of its URL, as ``http_port``.
        now_s: real seconds on the run's clock.
    """

    def __init__(
        self, witness: CountWitness, values: Mapping[str, object], now_s: Callable[[], float]
    ) -> None:
        self._witness, self._now_s = witness, now_s
        self._url = filled(witness.http or witness.prometheus or "", values)
        self._open = build_opener(ProxyHandler({})).open  # the server is near, whatever the environment says
        self._found: queue.SimpleQueue[tuple[float, float]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def new(self) -> Iterator[tuple[float, float]]:
        """Yield what has come in since the last call: real seconds, and the number."""
        while not self._found.empty():
            yield self._found.get()

    def _ask(self) -> None:
        said = ""
        while not self._closing.wait(self._witness.every):
            try:
                with self._open(self._url, timeout=_ANSWER_DEADLINE_S) as answer:
                    body = answer.read(_MOST_BYTES)
                if self._witness.metric is not None:
                    number = count_in_metrics(body.decode(errors="replace"), self._witness.metric)
                else:
                    number = count_in_json(body, self._witness.json_path)
            except (OSError, ValueError) as error:
                if str(error) != said:
                    print(f"{self._now_s():.3f} s: {self._url}: {error}", flush=True)
                said = str(error)
            else:
                self._found.put((self._now_s(), number))

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()


def count_in_json(body: bytes, path: str) -> float:
    """Return the number at a path, as ``$.clients``, or the length of the list or object there.

    Raises:
        ValueError: no JSON, or neither of these.
    """
    found: Any = at_json_path(orjson.loads(body), path)
    if isinstance(found, list | dict):
        return float(len(found))
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"no number at {path}, but {found!r}")
    return float(found)


def count_in_metrics(text: str, metric: str) -> float:
    """Return the sum of a metric's samples that have its labels, as ``connections{kind="ws"}``.

    Raises:
        ValueError: no such metric, or text that is none.
    """
    name, _, labels = metric.partition("{")
    wanted = dict(_LABEL.findall(labels))
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name.strip() and wanted.items() <= sample.labels.items()
    ]
    if not found:
        raise ValueError(f"no metric {metric}")
    return float(sum(found))
