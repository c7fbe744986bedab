"""A fault that flatline does not have: the client's answer breaks off in the middle of a frame.

    client             |  network  |  gateway
                       |<----------|  ping
    half a pong frame  |---------->|  bytes, but no message: no sign of life
    reads no more      |<--------->|  ACKs: TCP sees a live peer

Meaning: a process that is killed in a write whose socket somebody else keeps open, a proxy that has lost its
other side, a compressor that waits for more. Only a detector that counts whole messages notices.

Run it:  flatline run examples/half_answer.yaml
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.frames import Frame, Opcode

from scenarios.faults import ClientFault, ModelClient, PlannedFault, RealClient

_PONG = Frame(Opcode.TEXT, b'{"type":"pong"}').serialize(mask=True)


@dataclass(frozen=True)
class HalfAnswer(ClientFault):
    """The parameters are the scenario's `params`."""

    bytes: int = 9  # how many of the answer's 21 are sent

    kind = "half_answer"
    summary = "the answer breaks off in the middle of a frame"
    on_the_wire = "ACKs, and half a frame"
    mechanism = "half a frame, then stops reading"
    cannot_show = "nothing at the socket: these are the bytes that a broken write leaves"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Answer the next heartbeat by halves, and never read again."""
        wire = client.wire

        def answer_by_halves() -> None:
            wire.sock.sendall(_PONG[: self.bytes])
            client.reading_paused = True
            client.keep_open()  # closed, it would send a FIN

        client.on_heartbeat = answer_by_halves
        client.took_effect(fault)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """The model knows whole messages only: half an answer is none."""
        client.took_effect(fault)
        client.freeze()
