"""Check a liveness policy, or a product's configuration, against itself and against the boxes on the way.

From a policy, a heartbeat profile, a scenario or raw YAML keys to findings with severity, reason in numbers and
a fix with a value. Looks at numbers only: it runs nothing and simulates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.policy.lint.rules import HEARTBEAT, RECORDS, WAY, Finding, Severity
from harness.policy.lint.setting import (
    Extras,
    LintInputError,
    Setting,
    middleboxes_of,
    setting_of,
    setting_of_yaml,
)
from harness.policy.profiles import HeartbeatProfile, IdleTimerProfile
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = [
    "Extras",
    "Finding",
    "LintInputError",
    "Setting",
    "Severity",
    "lint",
    "middleboxes_of",
    "setting_of",
    "setting_of_yaml",
]


def lint(
    subject: LivenessPolicy | HeartbeatProfile | Setting,
    middleboxes: Iterable[IdleTimerProfile] = (),
    extras: Extras | None = None,
) -> list[Finding]:
    """Return what is wrong, the worst first; an empty list is a good policy.

    Args:
        subject: what is checked; `setting_of` finds one by name or file.
        middleboxes: boxes on the way; those for UDP are passed over, a WebSocket is TCP.
        extras: what the subject does not say.
    """
    setting = Setting.of(subject)
    if extras is not None:
        setting = extras.applied_to(setting)
    findings = [finding for rule in (*HEARTBEAT, *RECORDS) for finding in rule(setting)]
    for box in middleboxes:
        if box.transport == "tcp":
            findings += [finding for rule in WAY for finding in rule(setting, box)]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))
