"""Is the evidence of a run whole? From the witnesses' logs and the plan to what is missing, each log by its name.

What is not there cannot be measured, and looks like a better run: a client without a log is never lost, a fault without
a line is never missed. So the plan, the lines that each process says it has written, and what two witnesses of the same
thing wrote of it are held against each other:

* every log ends with the number of its lines, and every line can be read; a node that an incident killed aside, and a
  gateway that serves on after the run: its log then goes beyond the run's end;
* the generators that there are say how many there should be, and how many clients they had;
* a fault that was planned for a connected client took effect, or the client's log lacks it;
* a connection that the gateway accepted is one of a client, and the other way round;
* no client was answered before the gateway had answered, or asked after it: their clocks agree.

Pure. Judges no time that was measured, see `soundness.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from harness.events.history import History
from harness.events.incident_windows import incident_windows
from harness.events.log import LogFile
from reference_server.events import Event, EventKind, Source

__all__ = ["CLOCKS_AGREE_S", "missing_evidence"]

CLOCKS_AGREE_S = 0.05  # real seconds: an answer may be read so much later than it was sent, in both processes
_KILLED_S = 1.5  # real seconds: a process writes something twice a second until it is killed
_IN_FLIGHT_S = 2.0  # real seconds: what was going on when the run or a connection ended
_MOST_UNPAIRED = 0.01  # of the connections: one side's line may be lost with a process that is killed
_MOST_NAMED = 3


def missing_evidence(
    files: Sequence[LogFile], history: History, clock_error_s: float | None = None, *, serves_on: bool = False
) -> list[str]:
    """Return a sentence for each thing that is missing; none: the evidence is whole.

    Args:
        files: the logs of a run, its merged log where there is nothing else.
        history: of the real engine.
        clock_error_s: the most by which workers on other hosts are off, real seconds; None: all on one clock.
        serves_on: nobody ended the gateway and the store watch with the run, as under `flatline serve`.
    """
    killed = _killed(history)
    ends_s = [e.time_s for file in files for e in file.events.of(EventKind.RUN_ENDED)]
    over_s = max(ends_s) if serves_on and ends_s else None
    quiet = not history.plan.incidents  # then nothing is written of incidents
    spoken = [file for file in files if not (quiet and file.name.startswith("incidents-"))]
    found = [reason for file in spoken for reason in _lines(file, killed, over_s)]
    found += _generators(files, history)
    found += _faults(history)
    found += _connections(history)
    found += _clocks(files, CLOCKS_AGREE_S + 2 * (clock_error_s or 0.0))
    return found


def _killed(history: History) -> dict[str, list[float]]:
    """When an incident killed each node, real seconds as in the logs' own clock."""
    killed: dict[str, list[float]] = defaultdict(list)
    ids = {window.incident_id for window in incident_windows(history) if window.kills_node}
    for event in history.of(EventKind.INCIDENT_STARTED):
        if event.detail["incident_id"] in ids:
            killed[event.node].append(event.time_s)
    return killed


def _lines(file: LogFile, killed: dict[str, list[float]], over_s: float | None) -> Iterator[str]:
    """What is wrong with the lines of one log; ``over_s``: when the run was over, of one that is written on."""
    if not file.events:
        yield f"{file.name} is empty" + (f": {file.torn_lines} lines are torn" if file.torn_lines else "")
        return
    last = file.events[-1]
    may_be_killed = last.source is Source.GATEWAY and last.node in killed
    goes_on = over_s is not None and last.source is not Source.CLIENT and last.time_s > over_s
    total = len(file.events) + file.torn_lines
    if file.torn_lines > (1 if may_be_killed or goes_on else 0):
        yield f"{file.name}: {file.torn_lines} of {total} lines are torn"
    closings = file.events.of(EventKind.LOG_CLOSED)
    if last.kind is EventKind.LOG_CLOSED:
        said, there = sum(event.detail["lines"] for event in closings), total - len(closings)
        if there < said or (there > said and not may_be_killed):
            yield f"{file.name} has {there} lines, and its process wrote {said}"
    elif last.source is not Source.SIMULATION and not may_be_killed and not goes_on:
        yield f"{file.name} has no end: it was cut, or its process was killed"


def _generators(files: Sequence[LogFile], history: History) -> Iterator[str]:
    started = {
        (event.detail.get("worker"), event.detail.get("workers"), event.detail.get("clients"))
        for event in history.of(EventKind.RUN_STARTED, Source.CLIENT)
    }
    workers = max((of for _, of, _ in started if of is not None), default=0)
    there = len({worker for worker, _, _ in started})
    clients = sum(clients or 0 for _, _, clients in started)
    lost = history.of(EventKind.WORKER_LOST)
    if workers > there and not lost:
        yield f"{workers - there} of {workers} generators left no log (client-*.jsonl)"
    elif 0 < clients < history.plan.clients and not lost:
        yield f"the clients' logs are of {clients} of {history.plan.clients} clients"
    due = {
        str(client)
        for client in range(history.plan.clients)
        if history.plan.connect_at_s(client) < history.end_s - history.clock.scenario_s(_IN_FLIGHT_S)
    }
    said = {
        str(event.detail["client"])
        for kind in (EventKind.LOGGED_IN, EventKind.CONNECTED, EventKind.LOGIN_REFUSED)
        for event in history.of(kind, Source.CLIENT)
        if "client" in event.detail
    }
    # Who was let in by nobody has nothing to say; but then the gateway knows nobody either.
    known = len({e.detail.get("user_id") for e in history.of(EventKind.CONNECTED, Source.GATEWAY)})
    if len(due - said) > _MOST_UNPAIRED * len(due) and known > len(said):
        yield (
            f"{len(due - said)} of {len(due)} clients have no line in the clients' logs "
            f"({_names(files, Source.CLIENT)}), though the gateway let {known} users in"
        )


def _faults(history: History) -> Iterator[str]:
    """Planned faults that should have taken effect by what the client itself says of its connection."""
    spare_s = history.clock.scenario_s(_IN_FLIGHT_S)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    ended: dict[str, float] = {}
    for event in history.of(EventKind.DISCONNECTED, Source.CLIENT):
        ended[event.connection_id] = history.time_s(event)
    for event in history.of(EventKind.CONNECTED, Source.CLIENT):
        stop_s = ended.get(event.connection_id, history.end_s)
        spans[str(event.detail.get("client"))].append((history.time_s(event), stop_s))
    lacking: Counter[str] = Counter()
    planned = Counter(fault.fault for fault in history.plan.faults)
    for injected in history.injected_faults:
        fault = injected.planned
        if injected.injected_s is not None or fault.params.may_not_happen:
            continue
        was_there = any(
            begin_s <= fault.at_s and fault.at_s + spare_s < stop_s
            for begin_s, stop_s in spans[str(fault.client)]
        )
        lacking[fault.fault] += was_there
    for label, count in sorted(lacking.items()):
        if count:
            yield (
                f"{count} of {planned[label]} planned faults {label} have no line in the clients' logs, though "
                "their clients were connected at the time"
            )


def _connections(history: History) -> Iterator[str]:
    """What one side has of a connection the other one should have, but for what was going on at an end."""
    sides = {
        source: {e.connection_id: e for e in history.of(EventKind.CONNECTED, source) if e.connection_id}
        for source in (Source.CLIENT, Source.GATEWAY)
    }
    # The login of a dead client's user from elsewhere is tried, and its connection is nobody's in the plan.
    elsewhere = {e.session_id for e in history.of(EventKind.LOGGED_IN) if e.detail.get("relogin")}
    over = {e.connection_id: e.time_s for e in history.of(EventKind.SUSPECTED, Source.GATEWAY)}
    real_end_s = history.clock.real_s(history.end_s)
    for source, other in ((Source.CLIENT, Source.GATEWAY), (Source.GATEWAY, Source.CLIENT)):
        if not sides[source] or not sides[other]:
            continue  # it has no log at all: soundness says so
        unpaired = [
            event
            for one, event in sides[source].items()
            if one not in sides[other]
            and event.session_id not in elsewhere
            and min(real_end_s, over.get(one, real_end_s)) - event.time_s > _IN_FLIGHT_S
        ]
        if len(unpaired) > _MOST_UNPAIRED * len(sides[source]):
            yield (
                f"{len(unpaired)} of {len(sides[source])} connections in the {source}s' logs are in none of the "
                f"{other}s': lines are missing there"
            )


def _clocks(files: Sequence[LogFile], allowed_s: float) -> Iterator[str]:
    """An accepted connection: the client asked before the gateway answered, and had the answer after that."""
    accepted: dict[str, tuple[str, float]] = {}
    for file in files:
        for event in file.events.of(EventKind.CONNECTED, Source.GATEWAY):
            accepted.setdefault(event.connection_id, (file.name, event.time_s))
    behind: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for file in files:
        for event in file.events.of(EventKind.CONNECTED, Source.CLIENT):
            _note_offset(behind, file.name, event, accepted)
    wrong: list[tuple[float, str, str]] = []
    for (client, gateway), bounds in behind.items():
        # The client's clock less the gateway's is at least the one and at most the other.
        least_s, most_s = max(lo for lo, _ in bounds), min(hi for _, hi in bounds)
        if least_s > allowed_s or most_s < -allowed_s:
            wrong.append((most_s if most_s < 0 else least_s, client, gateway))
    for offset_s, client, gateway in sorted(wrong)[:_MOST_NAMED]:
        side = "behind" if offset_s < 0 else "ahead of"
        yield f"the times of {client} are at least {abs(offset_s):.3f} s (real time) {side} those of {gateway}"


def _note_offset(
    offsets: dict[tuple[str, str], list[tuple[float, float]]],
    name: str,
    event: Event,
    accepted: dict[str, tuple[str, float]],
) -> None:
    if event.connection_id in accepted and "took_s" in event.detail:
        gateway, at_s = accepted[event.connection_id]
        asked_s = event.time_s - float(event.detail["took_s"])
        offsets[name, gateway].append((asked_s - at_s, event.time_s - at_s))


def _names(files: Sequence[LogFile], source: Source) -> str:
    names = [file.name for file in files if file.events and file.events[0].source is source]
    return ", ".join(names[:_MOST_NAMED]) or "there is none"
