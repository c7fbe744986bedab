"""The fast fleet: millions of independent clients in NumPy, for sweeps over policies and networks.

From a policy, a network and a fault to samples of detection latency, false suspicions and costs. Same law as
the SimPy engine, which stays the reference; it keeps no event log and drives no detector object, so it is
for numbers, not for timelines.

Each client is a state machine that goes from event to event (ping, answer, deadline, retransmission,
idle sweep, TCP's give-up) with drawn round trips and outages. No closed form of a detection time is used. What is
jumped over are quiet runs in which the *drawn* network cannot matter: pings that arrive before the next outage
begins or after it has ended, and whose round trip is below the deadline. How many such pings come before the next
slow one is drawn too (a geometric law, exact for independent round trips). And outages that are over, with all that
they held up, before anybody's patience is, whenever they come (`machine.harmless_outages`).

What it leaves out, beyond what the SimPy engine leaves out:

* other detectors than ping and deadline (φ-accrual, probing, clients' beats), and a deadline above the interval;
* application traffic, and boxes on the way that close, have a maximum age, or stand next to the gateway and are not
  kept by pings;
* whatever couples clients: the loop's service time and stalls, memory pressure (`max_sessions`), several
  nodes, watchers, one common sweep (here each client's sweep has a phase of its own);
* the store: TTLs, clean-up, lockouts, logins from elsewhere, sessions that outlive their connection; only the number
  of Redis operations is kept;
* faults that say goodbye (orderly close, refresh, crashed process): their latency is one way's delay;
* pings of a connection that its client has left count as long as the gateway has not noticed, even where the
  client has resumed its session already;
* the second of two retransmissions that two outages between one loss and its retransmission cause in the SimPy
  engine: there the luckier round trip of the two counts, here there is one.
"""

from harness.simulated.fleet.result import FleetResult, Outcome
from harness.simulated.fleet.run import FleetError, fleet_sweep, not_simulated, run_fleet

__all__ = ["FleetError", "FleetResult", "Outcome", "fleet_sweep", "not_simulated", "run_fleet"]
