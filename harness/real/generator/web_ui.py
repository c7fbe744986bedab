"""Locust's web UI, with liveness: a "Liveness" tab (Locust's tabs hold one table each) and a page `/liveness`.

From the event logs of a run directory, followed while they grow, to a `LiveView` and from there to the browser.
Runs in the process that serves the web UI (the master, or the only one); the logs of workers and gateways on the
same machine are all there. Counts nothing itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gevent
from flask import Blueprint, Flask, Response, jsonify, request
from locust.env import Environment

from harness.events.tail import LogTail
from harness.real.generator.live_view import COLUMNS, LiveView
from reference_server.events import decode
from scenarios.clock import RunClock

__all__ = ["LivenessPages"]


_KEY = "liveness"
_LOOK_EVERY_S = 1.0
_LINES_AT_A_TIME = 500  # a long log to catch up with must not keep the clients waiting
_PAGE = Path(__file__).with_name("liveness.html")


class LivenessPages:
    """The tab and the page. `follow` says which run they show.

    Args:
        environment: with a web UI.
    """

    def __init__(self, environment: Environment) -> None:
        self._view = LiveView()
        self._name = ""
        self._follower: Any = None
        ui = environment.web_ui
        ui.template_args |= {
            "extended_tabs": [{"title": "Liveness", "key": _KEY}],
            "extended_tables": [
                {"key": _KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]}
            ],
            "extended_csv_files": [{"href": "./liveness", "title": "Liveness page"}],
        }
        pages = Blueprint(_KEY, __name__)
        pages.add_url_rule("/liveness", "page", ui.auth_required_if_enabled(self._page))
        pages.add_url_rule("/liveness/data", "data", ui.auth_required_if_enabled(self._data))
        app: Flask = ui.app
        app.register_blueprint(pages)
        app.after_request(self._add_to_stats)

    def follow(self, name: str, logs: Path, origin_s: float, clock: RunClock) -> None:
        """Show the run whose event logs are in a folder.

        Args:
            name: of the scenario.
            logs: its `*.jsonl` files may appear later.
            origin_s: CLOCK_MONOTONIC at the run's origin.
            clock: of the run.
        """
        if self._follower is not None:
            self._follower.kill()
        self._name, self._view = name, LiveView(clock)
        self._follower = gevent.spawn(self._run, self._view, logs, origin_s)

    def _run(self, view: LiveView, logs: Path, origin_s: float) -> None:
        with LogTail(logs, "*.jsonl") as tail:
            while True:
                tail.find_files()
                for n, line in enumerate(tail.new_lines(), 1):
                    view.take(decode(line))
                    if n % _LINES_AT_A_TIME == 0:
                        gevent.sleep(0)
                view.mark(time.monotonic() - origin_s)
                gevent.sleep(_LOOK_EVERY_S)

    def _page(self) -> Response:
        return Response(_PAGE.read_text(), mimetype="text/html")

    def _data(self) -> Response:
        columns = [{"key": key, "title": title} for key, title in COLUMNS]
        return jsonify(
            {
                "scenario": self._name,
                "columns": columns,
                "rows": self._view.rows(),
                "points": self._view.points(),
            }
        )

    def _add_to_stats(self, response: Response) -> Response:
        """Put the tab's rows where Locust's page looks for them."""
        if request.path.endswith("/stats/requests") and response.is_json:
            stats = response.get_json()
            stats["extended_stats"] = [{"key": _KEY, "data": self._view.rows()}]
            return jsonify(stats)
        return response
