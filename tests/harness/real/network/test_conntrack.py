"""Reading conntrack's "destroyed" messages: bytes as a kernel sent them."""

from __future__ import annotations

import pytest

from harness.real.network.conntrack import Ended, ended_mappings

# A connection from 10.77.1.1:39690, masqueraded as 10.78.0.1; Linux 6.18.
RECORDED = bytes.fromhex(
    "c4000000020100000000000000000000020000003400018014000180080001000a4d0101080002000a4e00fe1c000280"
    "0500010006000000060002009b0a000006000300138800003400028014000180080001000a4e00fe080002000a4e0001"
    "1c00028005000100060000000600020013880000060003009b0a000008000c0026634596080003000000039e1c001480"
    "0c00010018ea0680aca558600c00020018ea0681d724d620100004800c00018005000100030000000c001b0018ea0682"
    "1376bc7f"
)
ENDED = Ended("10.77.1.1", 39690, 0x18EA0681D724D620 / 1e9)


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (RECORDED, [ENDED]),
        (RECORDED + RECORDED, [ENDED, ENDED]),
        (b"", []),
        (b"\0" * 64, []),
        (RECORDED.replace(b"\x05\x00\x01\x00\x06", b"\x05\x00\x01\x00\x11"), []),
        (RECORDED.replace(b"\x1c\x00\x14\x80", b"\x1c\x00\x15\x80"), []),
    ],
    ids=["one", "two in a datagram", "nothing", "no message", "UDP", "without a time stamp"],
)
def test_what_ended_and_when(datagram: bytes, expected: list[Ended]) -> None:
    assert list(ended_mappings(datagram)) == expected
