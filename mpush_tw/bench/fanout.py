"""
How fast a broadcast reaches everybody, and what it does to pushes beside it.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from array import array
from multiprocessing.connection import Connection
from typing import Any

import attrs

from mpush_tw.bench.devices import STAMP
from mpush_tw.bench.fleet import Fleet
from mpush_tw.bench.gateway import GatewayLoad, PushCounts
from mpush_tw.bench.runs import Measured, Progress, Shape, latencies, percentile
from mpush_tw.bench.target import Target
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush, decode_broadcast_result
from mpush_tw.protocol.messages import Ok
from mpush_tw.protocol.packet import PacketDecoder, encode_packet

_ANSWER_SECONDS = 120.0
_BESIDE_WINDOW = 4096


@attrs.frozen
class FanoutShape:
    """
    What is broadcast.

    @ivar broadcasts: How many, one after the other.
    @ivar beside: Pushes to single users per second meanwhile; 0 for none.
    @ivar condition: The script of each broadcast; C{None} for everybody.
    """

    broadcasts: int
    beside: float = 0.0
    condition: str | None = None


def fanout(
    target: Target, shape: Shape, what: FanoutShape, progress: Progress
) -> Measured:
    """
    Deliveries per second of broadcasts to all devices.
    """
    progress(f"binding {shape.devices} devices")
    fleet = Fleet(
        target.host,
        target.port,
        target.public_key,
        shape.devices,
        shape.processes,
        shape.concurrency,
        shape.sources,
    )
    beside: _Beside | None = None
    try:
        opened = fleet.open_all()
        figures: dict[str, float | int | None] = {}
        if what.beside:
            progress("single pushes alone")
            beside = _Beside(target, shape, what.beside)
            alone = beside.run(shape.seconds)
            figures |= latencies("single push alone", alone.reply_ns)
        sender = _BroadcastSender(target, shape.size, what.condition)
        try:
            sender.broadcast()
            fleet.reset()
            progress(f"{what.broadcasts} broadcasts")
            if beside is not None:
                beside.begin(shape.seconds)
            cpu, start = target.cpu_seconds(), time.monotonic()
            taken = array("q")
            sent = done = 0
            while done < what.broadcasts or (
                what.beside and time.monotonic() < start + shape.seconds
            ):
                before = time.monotonic_ns()
                sent += sender.broadcast()
                taken.append(time.monotonic_ns() - before)
                done += 1
            seconds = time.monotonic() - start
            node_cpu = (target.cpu_seconds() - cpu) / seconds
            if beside is not None:
                meanwhile = beside.end()
                figures |= latencies("single push meanwhile", meanwhile.reply_ns)
                figures["single pushes failed"] = (
                    meanwhile.errors + meanwhile.unanswered
                )
            time.sleep(0.5)
            received = fleet.collect()
        finally:
            sender.close()
    finally:
        if beside is not None:
            beside.close()
        fleet.close()
    figures = {
        "deliveries per second": round(sent / (sum(taken) / 1e9), 1),
        "broadcasts": done,
        "sent": sent,
        "received": received.pushes,
        "broadcast p50 ms": percentile(taken, 0.5),
        "broadcast max ms": percentile(taken, 1.0),
        **figures,
    }
    measured = Measured("fan-out", figures, received.cpu, node_cpu)
    if opened.failed:
        measured.remarks.append(f"{opened.failed} devices could not be bound")
    if not what.beside and received.pushes != sent:
        measured.remarks.append("not everything that was sent has been received")
    return measured


class _BroadcastSender:
    """
    A gateway connection for broadcasts.
    """

    def __init__(self, target: Target, size: int, condition: str | None) -> None:
        address = target.host, target.gateway_port
        self._socket = socket.create_connection(address, 5)
        self._decoder = PacketDecoder(1 << 20)
        self._filler = b"b" * (size - STAMP.size)
        self._condition = condition
        self._number = 0

    def broadcast(self) -> int:
        """
        Broadcast, and wait for the answer.

        @return: To how many the node says it was sent.
        """
        self._number += 1
        content = STAMP.pack(time.monotonic_ns()) + self._filler
        body = GatewayPush(
            None, 0, int(_ANSWER_SECONDS * 1000), content, None, None, self._condition
        ).encode()
        self._socket.sendall(encode_packet(Command.GATEWAY_PUSH, self._number, 0, body))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self._socket], [], [], left)
            data = self._socket.recv(65536) if readable else b""
            if not data:
                break
            for cmd, _, _, answer in self._decoder.receive(data):
                if cmd != Command.OK:
                    raise RuntimeError("the node failed a broadcast")
                return int(decode_broadcast_result(Ok.decode(answer).data)["sent"])
        raise RuntimeError("the node does not answer a broadcast")

    def close(self) -> None:
        self._socket.close()


class _Beside:
    """
    Pushes to single users, from a process of their own.
    """

    def __init__(self, target: Target, shape: Shape, rate: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_push_beside,
            args=(
                (target.host, target.gateway_port, shape.devices, shape.size, rate),
                theirs,
            ),
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def begin(self, seconds: float) -> None:
        """
        Begin to push for a while.
        """
        self._pipe.send(seconds)

    def end(self) -> PushCounts:
        """
        Wait until that while is over.
        """
        if not self._pipe.poll(_ANSWER_SECONDS):
            raise RuntimeError("the generator process does not answer")
        try:
            result = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the generator process has ended") from None
        assert isinstance(result, PushCounts)
        return result

    def run(self, seconds: float) -> PushCounts:
        """
        Push for a while, and wait for its end.
        """
        self.begin(seconds)
        return self.end()

    def close(self) -> None:
        """
        End the process.
        """
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)


def _push_beside(arguments: tuple[Any, ...], pipe: Connection) -> None:
    host, port, users, size, rate = arguments
    load = GatewayLoad(host, port, users, size, auto_ack=False)
    try:
        while True:
            pipe.send(load.run(pipe.recv(), _BESIDE_WINDOW, rate))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return
    finally:
        load.close()
