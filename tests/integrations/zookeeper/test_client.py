"""
Tests for L{mpush_tw.integrations.zookeeper._client} that need a time, or a kazoo, as no
server gives it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from kazoo.exceptions import ConnectionLoss, NoNodeError
from kazoo.protocol.serialization import Connect
from kazoo.protocol.states import KazooState

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config.settings import ZkSettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper import _kazoo
from mpush_tw.integrations.zookeeper._client import ZooKeeperClient
from mpush_tw.integrations.zookeeper._errors import NoNode, Refusal

_PATIENCE = 5.0
"""
What the settings of these tests come to, in seconds.
"""


class FakeReactor(Clock):
    """
    A clock that takes what threads have to say.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: SimpleQueue[tuple[Callable[..., object], Any]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        self._said.put((function, args))

    def turn(self) -> None:
        """
        Do what threads have asked for.
        """
        while True:
            try:
                function, args = self._said.get_nowait()
            except Empty:
                return
            function(*args)


class FakeResult:
    """
    An answer of kazoo's, given later.
    """

    exception: Exception | None = None
    value: Any = None

    def rawlink(self, callback: Callable[[FakeResult], None]) -> None:
        self._callback = callback

    def answer(self, value: Any) -> None:
        """
        Answer, more than once if need be.
        """
        if isinstance(value, Exception):
            self.exception = value
        else:
            self.value = value
        self._callback(self)


class FakeKazoo:
    """
    A client of kazoo's without a server.

    @ivar results: The requests so far.
    """

    def __init__(self, hosts: str, **options: Any) -> None:
        self.handler = options["handler"]
        self.logger: logging.Logger = options["logger"]
        self.auth_data = options["auth_data"]
        self.client_id: tuple[int, bytes] | None = None
        self.last_zxid = 77
        self.results: list[FakeResult] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def add_listener(self, listener: Callable[[str], None]) -> None:
        self._listener = listener

    def start_async(self) -> None:
        pass

    def stop(self) -> None:
        self.may_end.wait(10)

    def close(self) -> None:
        pass

    def move(self, session: int | None) -> None:
        """
        Connect with a session, or lose the connection.
        """
        self.client_id = None if session is None else (session, b"password")
        self._listener(
            KazooState.SUSPENDED if session is None else KazooState.CONNECTED
        )

    def exists_async(self, path: str, watch: Any = None) -> FakeResult:
        if path == "/relative/..":
            raise ValueError("relative paths not allowed")
        self.results.append(FakeResult())
        return self.results[-1]


class ClientTestCase(SynchronousTestCase):
    """
    A client without a server.

    @ivar made: kazoo's clients so far; the last is the current one.
    """

    def setUp(self) -> None:
        self.made: list[FakeKazoo] = []

        def make(hosts: str, **options: Any) -> FakeKazoo:
            self.made.append(FakeKazoo(hosts, **options))
            return self.made[-1]

        self.patch(_kazoo, "KazooClient", make)
        self.reactor = FakeReactor()
        self.happened: list[int | None] = []
        settings = ZkSettings(server_address="h:2181", digest="the-secret")
        self.client = ZooKeeperClient(
            "h:2181",
            settings,
            self.reactor,
            self.happened.append,
            lambda: self.happened.append(None),
        )
        self.client.open()

    @property
    def kazoo(self) -> FakeKazoo:
        """
        The current client of kazoo's.
        """
        return self.made[-1]

    def move(self, session: int | None) -> None:
        """
        Let kazoo connect, or lose its connection.
        """
        self.kazoo.move(session)
        self.reactor.turn()

    def die(self) -> None:
        """
        Let the thread of the connection end.
        """

        def end() -> None:
            raise ZeroDivisionError

        self.kazoo.handler.spawn(end).join()
        self.reactor.turn()

    def turn_until(self, deferred: Deferred[Any]) -> None:
        """
        Wait for a thread that has nothing to wait for.
        """
        deadline = time.monotonic() + 5.0
        while not deferred.called and time.monotonic() < deadline:
            self.reactor.turn()
            time.sleep(0.001)


class RequestTests(ClientTestCase):
    """
    Every request has an end.
    """

    def test_not_connected(self) -> None:
        """
        Without a connection a request fails at once, with the address.
        """
        error = self.failureResultOf(self.client.exists("/a"), Unavailable).value
        self.assertIn("h:2181", str(error))
        self.assertEqual(self.kazoo.results, [])

    def test_unanswered(self) -> None:
        """
        A request that is not answered fails in the end.
        """
        self.move(1)
        result = self.client.exists("/a")
        self.reactor.advance(_PATIENCE - 0.1)
        self.assertNoResult(result)
        self.reactor.advance(0.1)
        self.failureResultOf(result, Unavailable)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_late(self) -> None:
        """
        An answer that comes later than that, or twice, does no harm.
        """
        self.move(1)
        late, twice = self.client.exists("/a"), self.client.exists("/b")
        self.kazoo.results[1].answer(None)
        self.kazoo.results[1].answer(ConnectionLoss())
        self.reactor.turn()
        self.assertIsNone(self.successResultOf(twice))
        self.reactor.advance(_PATIENCE)
        self.failureResultOf(late, Unavailable)
        for value in (None, NoNodeError()):
            self.kazoo.results[0].answer(value)
        self.reactor.turn()

    def test_refused(self) -> None:
        """
        What the server does not want is told with the path; what it loses is as if it
        could not be reached.
        """
        self.move(1)
        refused, lost = self.client.exists("/a"), self.client.exists("/b")
        self.kazoo.results[0].answer(NoNodeError())
        self.kazoo.results[1].answer(ConnectionLoss())
        self.reactor.turn()
        self.assertEqual(self.failureResultOf(refused, NoNode).value.path, "/a")
        self.failureResultOf(lost, Unavailable)

    def test_impossible(self) -> None:
        """
        So is a path that kazoo does not take.
        """
        self.move(1)
        self.failureResultOf(self.client.exists("/relative/.."), Refusal)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """
        A request may be given up by who has made it.
        """
        self.move(1)
        result = self.client.exists("/a")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.kazoo.results[0].answer(None)
        self.reactor.turn()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_many(self) -> None:
        """
        Only so many requests are under way at the same time; the others follow.
        """
        self.move(1)
        results = [self.client.exists(f"/{number}") for number in range(200)]
        self.assertEqual(len(self.kazoo.results), 64)
        answered = 0
        while answered < len(self.kazoo.results):
            self.kazoo.results[answered].answer(None)
            self.reactor.turn()
            answered += 1
        for result in results:
            self.assertIsNone(self.successResultOf(result))

    def test_many_lost(self) -> None:
        """
        Those that wait for their turn when the connection is lost fail as well.
        """
        self.move(1)
        results = [self.client.exists(f"/{number}") for number in range(200)]
        self.move(None)
        for result in list(self.kazoo.results):
            result.answer(ConnectionLoss())
        self.reactor.turn()
        for each in results:
            self.failureResultOf(each, Unavailable)
        self.assertEqual(len(self.kazoo.results), 64)


class ConnectionTests(ClientTestCase):
    """
    Connections that come and go.
    """

    def test_told(self) -> None:
        """
        Sessions are told as they come, and that there is none.
        """
        self.move(1)
        self.move(None)
        self.move(1)
        self.move(None)
        self.move(2)
        self.assertEqual(self.happened, [1, None, 1, None, 2])

    def test_server_without_memory(self) -> None:
        """
        After the longest of the time-outs without a connection a server that knows less
        than it did is as good as any, for one that has lost its data refuses others.
        """
        self.move(1)
        self.move(None)
        self.reactor.advance(_PATIENCE - 0.1)
        self.assertEqual(self.kazoo.last_zxid, 77)
        self.reactor.advance(0.1)
        self.assertEqual(self.kazoo.last_zxid, 0)

    def test_back_in_time(self) -> None:
        """
        A connection that comes back before that is not one to an older state.
        """
        self.move(1)
        self.move(None)
        self.reactor.advance(_PATIENCE - 0.1)
        self.move(1)
        self.reactor.advance(60)
        self.assertEqual(self.kazoo.last_zxid, 77)

    def test_thread_dies(self) -> None:
        """
        When kazoo's thread has ended another client begins after a pause, which grows
        until there is a connection.
        """
        self.move(1)
        self.die()
        self.assertEqual(self.happened, [1, None])
        for pause in (1.0, 2.0, 4.0, 5.0, 5.0):
            made = len(self.made)
            self.reactor.advance(pause - 0.1)
            self.assertEqual(len(self.made), made)
            self.reactor.advance(0.1)
            self.assertEqual(len(self.made), made + 1)
            self.die()
        self.reactor.advance(5.0)
        self.move(2)
        self.die()
        self.reactor.advance(1.0)
        self.move(3)
        self.assertEqual(self.happened, [1, None, 2, None, 3])

    def test_dead_client_is_not_heard(self) -> None:
        """
        What a client has to say that has been replaced is ignored.
        """
        self.die()
        self.reactor.advance(1.0)
        self.made[0].move(1)
        self.made[0].handler.spawn(lambda: None).join()
        self.reactor.turn()
        self.assertEqual(self.happened, [])
        self.assertEqual(len(self.made), 2)


class CloseTests(ClientTestCase):
    """
    The end.
    """

    def test_requests_fail(self) -> None:
        """
        Requests that are under way fail when the client is closed; what was lost is no
        news then.
        """
        self.move(1)
        result = self.client.exists("/a")
        self.turn_until(self.client.close())
        self.failureResultOf(result, Unavailable)
        self.failureResultOf(self.client.exists("/a"), Unavailable)
        self.assertEqual(self.happened, [1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """
        Closing takes four seconds at most, whatever kazoo does.
        """
        self.move(1)
        self.kazoo.may_end.clear()
        closed = self.client.close()
        self.reactor.advance(3.9)
        self.assertNoResult(closed)
        self.reactor.advance(0.1)
        self.assertIsNone(self.successResultOf(closed))
        self.kazoo.may_end.set()

    def test_several(self) -> None:
        """
        Everyone who closes waits for the same end, and afterwards for none.
        """
        self.move(1)
        self.kazoo.may_end.clear()
        first, second = self.client.close(), self.client.close()
        self.assertNoResult(second)
        self.kazoo.may_end.set()
        self.turn_until(first)
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(second))
        self.assertIsNone(self.successResultOf(self.client.close()))

    def test_while_waiting_for_a_new_client(self) -> None:
        """
        After the end no other client begins.
        """
        self.die()
        self.turn_until(self.client.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(60)
        self.assertEqual(len(self.made), 1)

    def test_while_interrupted(self) -> None:
        """
        An end during an interruption leaves nothing behind.
        """
        self.move(1)
        self.move(None)
        self.turn_until(self.client.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LogTests(ClientTestCase):
    """
    What kazoo has to say.
    """

    def test_secret(self) -> None:
        """
        kazoo's account of its requests, with the secret in them, is not even made.
        """
        self.assertEqual(self.kazoo.auth_data, [("digest", "the-secret")])
        self.assertFalse(self.kazoo.logger.isEnabledFor(logging.INFO))

    def test_password(self) -> None:
        """
        Nor is the password of the session told when kazoo complains of an answer.
        """
        request = Connect(0, 0, 2000, 1, b"the-password", None)
        self.kazoo.logger.warning("Exception in request: %s", request)
        self.reactor.turn()
        self.assertEqual(self.client.complaint, "Exception in request: Connect")

    def test_complaint(self) -> None:
        """
        Its last complaint tells why there is no connection, until there is one.
        """
        self.assertEqual(self.client.complaint, "")
        self.kazoo.logger.warning("Connection dropped: %s", "refused")
        self.kazoo.logger.warning("Transition to CONNECTING")
        self.reactor.turn()
        self.assertEqual(self.client.complaint, "Connection dropped: refused")
        self.move(1)
        self.assertEqual(self.client.complaint, "")

    def test_exception(self) -> None:
        """
        Of an exception it is told which one it was.
        """
        try:
            raise ZeroDivisionError("why")
        except ZeroDivisionError:
            self.kazoo.logger.exception("Unhandled exception in connection loop")
        self.reactor.turn()
        self.assertEqual(
            self.client.complaint,
            "Unhandled exception in connection loop: ZeroDivisionError('why')",
        )
