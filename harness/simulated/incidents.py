"""What happens to gateway nodes and to the store: stalls, crashes, deploys, restarts, flushes.

The plan says when; each is logged with its node when it takes effect and when its cause is gone.
"""

from __future__ import annotations

from functools import partial

from harness.faults import PlannedIncident
from harness.simulated.clock import Clock
from harness.simulated.nodes import Nodes
from harness.simulated.store import Store
from harness.simulated.witness import EventLog
from reference_server.events import EventKind

__all__ = ["happen"]


def happen(
    incident: PlannedIncident, clock: Clock, nodes: Nodes, store: Store, log: EventLog
) -> None:
    """Do a planned incident now; one that finds its node gone already does nothing and is not logged."""
    number = incident.node
    node = None if number is None else nodes[number]
    if node is not None and not node.alive:
        return
    name = "" if node is None else node.node
    detail = {
        "incident_id": incident.incident_id, "kind": incident.kind,
        "scheduled_s": incident.at_s, "mechanism": "model",
    }  # fmt: skip
    log.write(EventKind.INCIDENT_STARTED, node=name, detail=detail)
    ended = {"incident_id": incident.incident_id, "kind": incident.kind}
    over = partial(log.write, EventKind.INCIDENT_ENDED, node=name, detail=ended)
    match incident.kind:
        case "gateway_stall":
            assert node is not None and incident.lasts_s is not None
            node.loop.submit(incident.lasts_s, over)
        case "node_crash" | "node_drain":
            assert number is not None
            if incident.kind == "node_drain":
                nodes.drain(number)
            else:
                nodes.crash(number, host=incident.params["by"] == "host")
            if incident.lasts_s is not None:

                def back() -> None:
                    nodes.start(number)
                    over()

                clock.after(incident.lasts_s, back)
        case "store_flush":
            store.flush()
        case "reconnect_storm":
            nodes.reset_connections()
        case "store_restart":
            assert incident.lasts_s is not None
            store.stop(keeps=incident.params["keeps"])

            def answers() -> None:
                store.start()
                over()

            clock.after(incident.lasts_s, answers)
        case _:
            raise ValueError(f"unknown incident {incident.kind!r} in the plan")
