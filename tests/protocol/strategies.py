"""
What the property tests of the protocol room share: values, packets and messages to
draw, ways to cut and spoil their bytes, and how hard hypothesis tries.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any, Protocol

from hypothesis import settings
from hypothesis import strategies as st

from mpush_tw.protocol.gateway import GatewayKick, GatewayPush
from mpush_tw.protocol.messages import (
    BindUser,
    Error,
    FastConnect,
    FastConnectOk,
    Handshake,
    HandshakeOk,
    HttpRequest,
    HttpResponse,
    Kick,
    Ok,
)
from mpush_tw.protocol.packet import HEARTBEAT, Packet, PacketDecoder, encode_packet

settings.register_profile(
    "mpush_tw",
    max_examples=100,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    database=None,
)
settings.load_profile("mpush_tw")


class WireMessage(Protocol):
    """
    Any message class: what it can do on the wire.
    """

    @classmethod
    def decode(cls, body: bytes) -> Any: ...

    def encode(self) -> bytes: ...


signed_bytes = st.integers(-128, 127)
ints = st.integers(-(1 << 31), (1 << 31) - 1)
longs = st.integers(-(1 << 63), (1 << 63) - 1)
sixteen_bytes = st.binary(min_size=16, max_size=16)
maybe_text = st.none() | st.text(min_size=1, max_size=20)
maybe_bytes = st.none() | st.binary(min_size=1, max_size=80)
header_names = st.text(min_size=1, max_size=8).filter(
    lambda name: not {":", "\n"} & set(name)
)
header_values = st.text(max_size=12).filter(lambda value: "\n" not in value)
maybe_headers = st.none() | st.dictionaries(
    header_names, header_values, min_size=1, max_size=4
)
maybe_tags = st.none() | st.lists(st.text(max_size=8), max_size=4).map(tuple)

packets: st.SearchStrategy[Packet] = st.just(HEARTBEAT) | st.tuples(
    signed_bytes.filter(lambda cmd: cmd != 1),
    st.integers(0, 255),
    ints,
    st.binary(max_size=60),
)

MESSAGES: dict[type[WireMessage], st.SearchStrategy[Any]] = {
    Handshake: st.builds(
        Handshake,
        *[maybe_text] * 4,
        *[maybe_bytes] * 2,
        ints,
        ints,
        longs,
    ),
    HandshakeOk: st.builds(HandshakeOk, sixteen_bytes, ints, st.text(), longs),
    FastConnect: st.builds(FastConnect, maybe_text, maybe_text, ints, ints),
    FastConnectOk: st.builds(FastConnectOk, ints),
    BindUser: st.builds(BindUser, maybe_text, maybe_text, maybe_text),
    Ok: st.builds(Ok, signed_bytes, signed_bytes, maybe_text),
    Error: st.builds(Error, signed_bytes, signed_bytes, maybe_text, maybe_text),
    Kick: st.builds(Kick, maybe_text, maybe_text),
    HttpRequest: st.builds(
        HttpRequest, signed_bytes, maybe_text, maybe_headers, maybe_bytes
    ),
    HttpResponse: st.builds(HttpResponse, ints, maybe_text, maybe_headers, maybe_bytes),
    GatewayPush: st.builds(
        GatewayPush,
        maybe_text,
        ints,
        ints,
        maybe_bytes,
        maybe_text,
        maybe_tags,
        maybe_text,
    ),
    GatewayKick: st.builds(
        GatewayKick, maybe_text, maybe_text, maybe_text, ints, maybe_text, ints
    ),
}
"""
Every message class, and values of it whose encoding can be read back as they are.
"""

messages: st.SearchStrategy[WireMessage] = st.one_of(*MESSAGES.values())


@st.composite
def spoiled(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """
    Draw bytes that were right before something happened to them: a cut, some foreign
    bytes in the middle, rubbish at the end, or several of these. Pure noise rarely gets
    past a first length field; this does.
    """
    data = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 4))
        put = draw(st.sampled_from([b"", b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"a"]))
        data = data[:at] + put + data[at + gone :]
    return data


def spoiled_bodies(kind: type[WireMessage]) -> st.SearchStrategy[bytes]:
    """
    Draw bodies of one message class, whole and spoiled, and noise.
    """
    whole = MESSAGES[kind].map(lambda message: message.encode())
    return st.binary(max_size=80) | spoiled(whole)


chunk_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """
    Cut bytes into chunks of the given sizes, over and over.
    """
    at = 0
    for size in cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def encode_all(sequence: Iterable[Packet]) -> bytes:
    """
    Write packets one behind the other.
    """
    return b"".join(
        encode_packet(cmd, session_id, flags, body)
        for cmd, flags, session_id, body in sequence
    )


def receive_all(decoder: PacketDecoder, chunks: Iterable[bytes]) -> list[Packet]:
    """
    Feed chunks to a decoder and collect what comes out.
    """
    return [packet for chunk in chunks for packet in decoder.receive(chunk)]
