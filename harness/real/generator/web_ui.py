"""Locust's web UI, with liveness: a "Liveness" tab (Locust's tabs hold one table each) and a page `/liveness`.

From a `LiveRun` to the browser: the same page and numbers as `flatline run --live-page` has without Locust's UI. Runs
in the process that serves the web UI (the master, or the only one); the logs of workers and gateways on the same
machine are all there. Counts nothing itself.
"""

from __future__ import annotations

from flask import Blueprint, Flask, Response, jsonify, request
from locust.env import Environment

from harness.live.counts import COLUMNS
from harness.live.metrics import LiveMetrics
from harness.live.page import LIVENESS_PAGE
from harness.live.run import LiveRun

__all__ = ["LivenessPages"]


_KEY = "liveness"


class LivenessPages:
    """The tab, the page, and `/metrics` for Prometheus.

    Args:
        environment: with a web UI.
        run: what they show.
    """

    def __init__(self, environment: Environment, run: LiveRun) -> None:
        self._run, self._live_metrics = run, LiveMetrics(run)
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
        pages.add_url_rule("/metrics", "metrics", ui.auth_required_if_enabled(self._metrics))
        app: Flask = ui.app
        app.register_blueprint(pages)
        app.after_request(self._add_to_stats)

    def _page(self) -> Response:
        return Response(LIVENESS_PAGE.read_text(), mimetype="text/html")

    def _data(self) -> Response:
        return jsonify(self._run.page_data() | {"home": "Locust"})

    def _metrics(self) -> Response:
        text, kind = self._live_metrics.scrape(request.headers.get("Accept", ""))
        return Response(text, content_type=kind)

    def _add_to_stats(self, response: Response) -> Response:
        """Put the tab's rows where Locust's page looks for them."""
        if request.path.endswith("/stats/requests") and response.is_json:
            stats = response.get_json()
            with self._run.held() as counts:
                stats["extended_stats"] = [{"key": _KEY, "data": counts.rows()}]
            return jsonify(stats)
        return response
