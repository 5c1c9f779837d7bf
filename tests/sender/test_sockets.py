"""
The sender on real sockets: against a real node, and from a thread.
"""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.python import threadable
from twisted.trial.unittest import TestCase

from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.sender import (
    PushContext,
    PushResult,
    PushSender,
    ResultCode,
    push_sender,
)
from mpush_tw.sender.blocking import BlockingPushSender
from tests.sender.gateway import Asked, FakeGateway, FakeGatewayFactory
from tests.support import NodeTestCase


class NodeTests(NodeTestCase):
    def test_nobody_there(self) -> Any:
        """
        A real node says of a user it does not know that they are offline.
        """

        async def push() -> None:
            port = self.ports[3001]
            sender = PushSender([("127.0.0.1", port)], reactor=reactor)
            await sender.start()
            self.addCleanup(sender.stop)
            result = await sender.send(PushContext(b"hi", user_id="nobody"))
            self.assertIs(result.code, ResultCode.OFFLINE)
            self.assertIn("offline-end", [name for name, _ in result.time_line])

        return ensureDeferred(push())


def only_alice(gateway: FakeGateway, asked: Asked) -> None:
    """
    Answer as a gateway that has one user.
    """
    if asked.push.user_id == "alice":
        gateway.ok(asked)
    else:
        gateway.error(asked, ErrorCode.OFFLINE)


class SocketTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        listen: Any = reactor
        self.port = listen.listenTCP(
            0, FakeGatewayFactory(only_alice), interface="127.0.0.1"
        )
        self.addCleanup(self.port.stopListening)
        # A reactor of its own declares its thread the reactor thread.
        self.patch(threadable, "ioThread", threadable.ioThread)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port.getHost().port

    def test_list(self) -> Any:
        """
        A list of users over a real connection: everybody has a result. The gateway is
        named by host name.
        """

        async def push() -> None:
            sender = PushSender([("localhost", self.address[1])], reactor=reactor)
            await sender.start()
            self.addCleanup(sender.stop)
            users = ["alice", *(f"user-{number}" for number in range(999))]
            done = await sender.send_all(PushContext(bytes(1000), user_ids=users))
            self.assertEqual(done.count(ResultCode.SUCCESS), 1)
            self.assertEqual(done.count(ResultCode.OFFLINE), 999)

        return ensureDeferred(push())

    def test_blocking(self) -> Any:
        """
        A script without a reactor pushes and goes on; a sender that was stopped sends
        no more.
        """

        def script() -> None:
            with BlockingPushSender([self.address]) as sender:
                result = sender.send(PushContext(b"hi", user_id="alice"))
                self.assertIs(result.code, ResultCode.SUCCESS)
                done = sender.send_all(PushContext(b"hi", user_ids=["alice", "bob"]))
                self.assertEqual(done.count(ResultCode.OFFLINE), 1)
                with self.assertRaises(PushError):
                    sender.send(PushContext(b"hi"))
            with self.assertRaises(PushError):
                sender.send(PushContext(b"hi", user_id="alice"))

        return deferToThread(script)

    def test_blocking_in_callback(self) -> Any:
        """
        A callback that waits for its own sender gets an exception instead of waiting
        for ever.
        """

        def script() -> None:
            refused: list[str] = []

            def again(result: PushResult) -> None:
                for call in (
                    lambda: sender.send(PushContext(b"hi", user_id="bob")),
                    sender.stop,
                ):
                    with self.assertRaises(RuntimeError):
                        call()
                    refused.append(result.user_id)

            with BlockingPushSender([self.address]) as sender:
                sender.send(PushContext(b"hi", user_id="alice", callback=again))
                self.assertEqual(refused, ["alice"] * 2)

        return deferToThread(script)

    def test_blocking_stopped_by_another_thread(self) -> Any:
        """
        Threads that send while another one stops the sender all come to an end: with a
        result, or refused.
        """
        ended: list[object] = []

        def send_on(sender: BlockingPushSender) -> None:
            try:
                while sender.send(PushContext(b"hi", user_id="alice")).succeeded:
                    pass
                ended.append("failed")
            except PushError:
                ended.append("refused")

        def script() -> None:
            sender = BlockingPushSender([self.address])
            sender.start()
            threads = [
                threading.Thread(target=send_on, args=(sender,), daemon=True)
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            sender.stop()
            for thread in threads:
                thread.join(10)
            self.assertEqual(len(ended), len(threads))

        return deferToThread(script)

    def test_blocking_without_gateway(self) -> Any:
        """
        A script whose gateway is not there gets an exception.
        """
        listen: Any = reactor
        unused = listen.listenTCP(
            0, FakeGatewayFactory(only_alice), interface="127.0.0.1"
        )
        number = unused.getHost().port

        def script(_: object) -> None:
            self.patch(push_sender, "CONNECT_TIMEOUT", 0.2)
            with self.assertRaises(Unavailable):
                BlockingPushSender([("127.0.0.1", number)]).start()

        return unused.stopListening().addCallback(
            lambda result: deferToThread(script, result)
        )
