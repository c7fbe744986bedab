"""Theory: closed forms of detection latency, false suspicion and cost, and a scenario's predictions.

Pure: from policies, networks and scenarios to laws and numbers; nothing here samples, runs or opens files.
"""

from harness.theory.costs import Cost, bytes_per_beat, cost
from harness.theory.detectors import idle_limit, miss_at_next_tick, nat_prevented, nat_reset, ping_deadline
from harness.theory.false_suspicions import (
    dropped_by_idle_timer,
    false_suspicions_by_late_answers,
    false_suspicions_by_outages,
    mean_excess_s,
    noticed_share,
)
from harness.theory.fault_laws import FaultLaws, laws_of_fault
from harness.theory.law import Law, mixture
from harness.theory.literature.datagram_loss import (
    GilbertElliott,
    beats_to_suspicion_gilbert,
    beats_to_suspicion_iid,
)
from harness.theory.literature.loop_stall import (
    answer_wait_bound,
    harmless_stall_s,
    loop_utilisation,
    stall_false_suspicion,
)
from harness.theory.literature.nfd_s import ChenNetwork, NfdS, NotConfigurable, Qos, configure_nfd_s
from harness.theory.literature.other_detectors import (
    close_seen,
    connection_check,
    false_suspicion_per_outage_exponential,
    nat_drop,
    next_retransmission_s,
    send_fails,
    ttl_only,
)
from harness.theory.literature.phi_accrual_laws import AkkaPhi, CassandraPhi, phi_accrual
from harness.theory.predict import Prediction, coincides, locked_out, predict
from harness.theory.silence import Healing, race, silent_death, store_floor
from harness.theory.stack import Layer, Stack, first_of, first_of_common_phase
from harness.theory.tables import curves_frame, laws_frame
from harness.theory.tcp import tcp_give_up_s, textbook_ladder_s, user_timeout_fires_s

__all__ = [
    "AkkaPhi",
    "CassandraPhi",
    "ChenNetwork",
    "Cost",
    "FaultLaws",
    "GilbertElliott",
    "Healing",
    "Law",
    "Layer",
    "NfdS",
    "NotConfigurable",
    "Prediction",
    "Qos",
    "Stack",
    "answer_wait_bound",
    "beats_to_suspicion_gilbert",
    "beats_to_suspicion_iid",
    "bytes_per_beat",
    "close_seen",
    "coincides",
    "configure_nfd_s",
    "connection_check",
    "cost",
    "curves_frame",
    "dropped_by_idle_timer",
    "false_suspicion_per_outage_exponential",
    "false_suspicions_by_late_answers",
    "false_suspicions_by_outages",
    "first_of",
    "first_of_common_phase",
    "harmless_stall_s",
    "idle_limit",
    "laws_frame",
    "laws_of_fault",
    "locked_out",
    "loop_utilisation",
    "mean_excess_s",
    "miss_at_next_tick",
    "mixture",
    "nat_drop",
    "nat_prevented",
    "nat_reset",
    "next_retransmission_s",
    "noticed_share",
    "phi_accrual",
    "ping_deadline",
    "predict",
    "race",
    "send_fails",
    "silent_death",
    "stall_false_suspicion",
    "store_floor",
    "tcp_give_up_s",
    "textbook_ladder_s",
    "ttl_only",
    "user_timeout_fires_s",
]
