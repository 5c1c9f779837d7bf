"""
Tests for L{mpush_tw.integrations.zookeeper.registry} when the server is not well.
"""

from __future__ import annotations

import socket
from typing import Any

from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from mpush_tw.config.settings import ZkRetrySettings
from mpush_tw.errors import Unavailable
from mpush_tw.integrations.zookeeper import ZooKeeperRegistry
from mpush_tw.integrations.zookeeper import registry as registry_module
from mpush_tw.interfaces import ServiceNode
from tests.integrations.contracts import steps
from tests.integrations.registry_contract import (
    CS,
    FakeServiceListener,
    node,
    pause,
    until,
)
from tests.integrations.zookeeper.support import QUIET, ZooKeeperTestCase
from tests.servers.zookeeper import free_port

_REACTOR: Any = reactor


def seconds() -> float:
    """
    The time, for measuring.
    """
    now: float = _REACTOR.seconds()
    return now


class Network(ProxyFactory):
    """
    What is between one client and the server: a port that can be closed.
    """

    def __init__(self, port: int) -> None:
        """
        @param port: The server's.
        """
        super().__init__("127.0.0.1", port)
        self._open: list[ProxyServer] = []
        self._listening: Any = None
        self._door = 0

    @property
    def address(self) -> str:
        """
        Where clients connect.
        """
        return f"127.0.0.1:{self._door}"

    def buildProtocol(self, address: Any) -> Any:
        link = super().buildProtocol(address)
        self._open.append(link)
        return link

    def up(self) -> None:
        """
        Let clients through.
        """
        self._listening = _REACTOR.listenTCP(self._door, self, interface="127.0.0.1")
        self._door = self._listening.getHost().port

    async def down(self) -> None:
        """
        Cut all connections and refuse new ones.
        """
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await listening.stopListening()
        links, self._open = self._open, []
        for link in links:
            for end in (link, link.peer):
                if end is not None and end.transport is not None:
                    end.transport.abortConnection()
        await pause(0.05)


class FailureTestCase(ZooKeeperTestCase):
    """
    A test whose server, or whose connection, fails.
    """

    def network(self) -> Network:
        """
        A connection to the server that can be cut.
        """
        network = Network(self.server.port)
        network.up()
        self.addCleanup(steps(Network.down), network)
        return network

    async def listening(
        self, registry: ZooKeeperRegistry, *expected: ServiceNode
    ) -> FakeServiceListener:
        """
        Listen, and wait until these nodes are known.
        """
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await self.known(listener, *expected)
        listener.heard.clear()
        return listener

    async def known(
        self, listener: FakeServiceListener, *expected: ServiceNode
    ) -> None:
        """
        Wait until exactly these nodes are known.
        """
        nodes = {each.node_id: each for each in expected}
        await until(lambda: listener.nodes == nodes)

    async def asked(self, registry: ZooKeeperRegistry) -> list[ServiceNode]:
        """
        Look up, as soon as that is possible.
        """
        deadline = seconds() + 15.0
        while True:
            try:
                return await registry.lookup(CS)
            except Unavailable:
                if seconds() > deadline:
                    raise
            await pause(0.05)

    def pause_server(self) -> None:
        """
        Stop the server until it is resumed, or the test ends: other clients that are
        stopped then need it.
        """
        self.server.pause()
        self.addCleanup(self.server.resume)

    def interrupted(self, registry: ZooKeeperRegistry) -> Any:
        """
        Wait until a registry has noticed that there is no connection.
        """
        return until(lambda: registry._client.session_id is None)

    def connected(self, registry: ZooKeeperRegistry) -> Any:
        """
        Wait until a registry has a connection.
        """
        return until(lambda: registry._client.session_id is not None)


class StartTests(FailureTestCase):
    """
    Starts that fail, and those that do not.
    """

    def setUp(self) -> Any:
        self.patch(registry_module, "_START_S", 1.0)
        return super().setUp()

    async def assert_no_start(self, address: str) -> str:
        """
        Assert that a start fails in time, with address and key, and give the sentence.
        """
        registry = self.make(server_address=address, connection_timeout=0.5)
        began = seconds()
        error = await self.assertFailure(registry.start(), Unavailable)
        self.assertLess(seconds() - began, 5.0)
        self.assertIn(address, str(error))
        self.assertIn("mp.zk.server-address", str(error))
        return str(error)

    @steps
    async def test_nobody_there(self) -> None:
        """
        Without a server the start fails and says why.
        """
        said = await self.assert_no_start(f"127.0.0.1:{free_port()}")
        self.assertIn("refused", said)

    @steps
    async def test_unknown_host(self) -> None:
        """
        So it does with a host that does not exist.
        """
        said = await self.assert_no_start("no-such-host.invalid:2181")
        self.assertIn("no-such-host.invalid", said)

    @steps
    async def test_not_a_zookeeper(self) -> None:
        """
        So it does when something else answers.
        """

        class Redis(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"-ERR unknown command\r\n" * 1000)

        port = _REACTOR.listenTCP(0, Factory.forProtocol(Redis), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await self.assert_no_start(f"127.0.0.1:{port.getHost().port}")

    @steps
    async def test_nonsense(self) -> None:
        """
        So it does when something answers whose length is negative.
        """

        class Nonsense(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"\xff" * 64)

        factory = Factory.forProtocol(Nonsense)
        port = _REACTOR.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await self.assert_no_start(f"127.0.0.1:{port.getHost().port}")

    @steps
    async def test_again_after_a_failure(self) -> None:
        """
        A registry whose start has failed can be started again.
        """
        network = self.network()
        await network.down()
        registry = self.make(server_address=network.address, connection_timeout=0.5)
        await self.assertFailure(registry.start(), Unavailable)
        network.up()
        await registry.start()
        self.assertEqual(await registry.lookup(CS), [])

    @steps
    async def test_all_who_start(self) -> None:
        """
        Who starts it while it is starting learns the same.
        """
        registry = self.make(server_address=f"127.0.0.1:{free_port()}")
        for start in [registry.start(), registry.start()]:
            await self.assertFailure(start, Unavailable)

    @steps
    async def test_stop_while_starting(self) -> None:
        """
        A stop ends a start at once.
        """
        registry = self.make(server_address=f"127.0.0.1:{free_port()}")
        start = registry.start()
        began = seconds()
        await registry.stop()
        await self.assertFailure(start, Unavailable)
        self.assertLess(seconds() - began, 0.9)

    def test_patience(self) -> None:
        """
        A start waits for ten seconds, or for the connection time-out if that is longer.
        """
        self.patch(registry_module, "_START_S", 10.0)
        bounds = [
            self.make(connection_timeout=given)._start_bound for given in (2.0, 20.0)
        ]
        self.assertEqual(bounds, [10.0, 20.0])

    @steps
    async def test_another_server(self) -> None:
        """
        Of several servers one that can be reached will do.
        """
        dead = free_port()
        registry = await self.started(
            server_address=f"127.0.0.1:{dead},{self.server.address},localhost:{dead}",
            connection_timeout=10.0,
        )
        await registry.register(node("a"))
        self.assertEqual(await registry.lookup(CS), [node("a")])

    @steps
    async def test_stop_during_connection(self) -> None:
        """
        A stop does not wait for a connection that is neither made nor refused.
        """
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            # The first fills the queue of those who wait to be accepted; what follows
            # is not answered.
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(address)
            registry = self.make(
                server_address=f"127.0.0.1:{address[1]}", connection_timeout=30.0
            )
            start = registry.start()
            await pause(0.5)
            began = seconds()
            await registry.stop()
            await self.assertFailure(start, Unavailable)
            self.assertLess(seconds() - began, 3.0)
            self.no_threads_left()
            for each in waiting:
                each.close()


class SilentStartTests(FailureTestCase):
    """
    A server that comes late.
    """

    own_server = True

    @steps
    async def test_silent(self) -> None:
        """
        A server that accepts connections and says nothing fails the start in time.
        """
        self.patch(registry_module, "_START_S", 1.0)
        self.pause_server()
        registry = self.make(connection_timeout=0.5)
        began = seconds()
        await self.assertFailure(registry.start(), Unavailable)
        self.assertLess(seconds() - began, 5.0)

    @steps
    async def test_late(self) -> None:
        """
        A server that comes up within the time is waited for.
        """
        self.server.kill()
        start = self.make().start()
        await pause(1.0)
        await deferToThread(self.server.start)
        await start


class InterruptionTests(FailureTestCase):
    """
    One client's connection is cut.
    """

    @steps
    async def test_same_session(self) -> None:
        """
        After a short interruption a node is the same as before: peers see nothing
        (C-20).
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(
            server_address=network.address, session_timeout=6.0
        )
        await registry.register(node("a"))
        peer = await self.started()
        listener = await self.listening(peer, node("a"))
        before = observer.exists(self.path("cluster/cs/a"))
        await network.down()
        await self.interrupted(registry)
        network.up()
        self.assertEqual(await self.asked(registry), [node("a")])
        await pause(0.5)
        self.assertEqual(observer.exists(self.path("cluster/cs/a")), before)
        self.assertEqual(listener.heard, [])

    @steps
    async def test_expired(self) -> None:
        """
        After one that outlasts the session it is registered again, under the same path
        and a new session; peers see it go and come.
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(server_address=network.address)
        await registry.register(node("a"))
        peer = await self.started()
        listener = await self.listening(peer, node("a"))
        before = observer.exists(self.path("cluster/cs/a"))
        await network.down()
        await self.known(listener)
        network.up()
        await self.known(listener, node("a"))
        after = observer.exists(self.path("cluster/cs/a"))
        self.assertNotIn(after.ephemeralOwner, (0, before.ephemeralOwner))
        self.assertEqual([event for event, _ in listener.heard], ["removed", "added"])

    @steps
    async def test_frozen(self) -> None:
        """
        While there is no connection listeners hear nothing and look-ups fail at once;
        afterwards the differences are told, each once.
        """
        network = self.network()
        peer = await self.started()
        for node_id in ("stays", "changes", "goes", "returns"):
            await peer.register(node(node_id))
        registry = await self.started(server_address=network.address)
        nodes = [node(each) for each in ("stays", "changes", "goes", "returns")]
        listener = await self.listening(registry, *nodes)
        await network.down()
        await self.interrupted(registry)
        await peer.register(node("changes", 4000))
        await peer.deregister(node("goes"))
        await peer.deregister(node("returns"))
        await peer.register(node("returns"))
        await peer.register(node("comes"))
        await pause(2.5)
        self.assertEqual(listener.heard, [])
        began = seconds()
        error = await self.assertFailure(registry.lookup(CS), Unavailable)
        self.assertLess(seconds() - began, 0.5)
        self.assertIn(network.address, str(error))
        network.up()
        await until(lambda: len(listener.heard) >= 3)
        await pause(0.3)
        self.assertCountEqual(
            listener.heard,
            [
                ("updated", node("changes", 4000)),
                ("removed", node("goes")),
                ("added", node("comes")),
            ],
        )

    @steps
    async def test_subscribed_meanwhile(self) -> None:
        """
        Who begins to listen while there is no connection is told when there is one; who
        has ceased is not.
        """
        network = self.network()
        peer = await self.started()
        await peer.register(node("a"))
        registry = await self.started(server_address=network.address)
        ceases = await self.listening(registry, node("a"))
        await network.down()
        await self.interrupted(registry)
        begins = FakeServiceListener()
        registry.subscribe(CS, begins)
        registry.unsubscribe(CS, ceases)
        await peer.register(node("b"))
        network.up()
        await self.known(begins, node("a"), node("b"))
        self.assertEqual(ceases.heard, [])

    @steps
    async def test_withdrawn_meanwhile(self) -> None:
        """
        A node that is withdrawn while there is no connection is deleted when the
        session is taken up again, and does not come back (C-22).
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(
            server_address=network.address, session_timeout=6.0
        )
        await registry.register(node("a"))
        await registry.register(node("b"))
        await network.down()
        await self.interrupted(registry)
        began = seconds()
        await registry.deregister(node("a"))
        self.assertLess(seconds() - began, 0.5)
        self.assertTrue(observer.exists(self.path("cluster/cs/a")))
        network.up()
        await until(lambda: not observer.exists(self.path("cluster/cs/a")))
        await pause(0.5)
        self.assertEqual(observer.get_children(self.path("cluster/cs")), ["b"])

    @steps
    async def test_withdrawn_and_expired(self) -> None:
        """
        Nor does it come back with a new session.
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(server_address=network.address)
        await registry.register(node("a"))
        await registry.register(node("b"))
        await network.down()
        await self.interrupted(registry)
        await registry.deregister(node("a"))
        children = self.path("cluster/cs")
        await until(lambda: observer.get_children(children) == [])
        network.up()
        await until(lambda: observer.get_children(children) == ["b"])
        await pause(0.5)
        self.assertEqual(observer.get_children(children), ["b"])

    @steps
    async def test_withdrawn_and_registered_meanwhile(self) -> None:
        """
        A node that is withdrawn and registered again while there is no connection stays
        what it was, if the session does.
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(
            server_address=network.address,
            session_timeout=6.0,
            retry=ZkRetrySettings(base_sleep_time=0.2, max_retries=20, max_sleep=0.2),
        )
        await registry.register(node("a"))
        before = observer.exists(self.path("cluster/cs/a"))
        await network.down()
        await self.interrupted(registry)
        await registry.deregister(node("a"))
        registering = registry.register(node("a"))
        await pause(0.3)
        network.up()
        await registering
        await pause(0.5)
        self.assertEqual(observer.exists(self.path("cluster/cs/a")), before)

    @steps
    async def test_withdrawn_during_registration(self) -> None:
        """
        A node that is withdrawn while it is being registered is not there, and the
        registration fails.
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(
            server_address=network.address,
            retry=ZkRetrySettings(base_sleep_time=0.2, max_retries=20, max_sleep=0.2),
        )
        await network.down()
        await self.interrupted(registry)
        registering = registry.register(node("a"))
        await registry.deregister(node("a"))
        network.up()
        await self.assertFailure(registering, Unavailable)
        await self.connected(registry)
        await pause(0.5)
        self.assertIsNone(observer.exists(self.path("cluster/cs/a")))

    @steps
    async def test_registration_given_up(self) -> None:
        """
        So is one whose caller gives it up.
        """
        network = self.network()
        observer = self.observer()
        registry = await self.started(server_address=network.address)
        await network.down()
        await self.interrupted(registry)
        registering = registry.register(node("a"))
        registering.cancel()
        await self.assertFailure(registering, CancelledError)
        network.up()
        await self.connected(registry)
        await pause(0.5)
        self.assertIsNone(observer.exists(self.path("cluster/cs/a")))

    @steps
    async def test_registered_meanwhile(self) -> None:
        """
        A registration waits for a connection that comes back soon.
        """
        network = self.network()
        registry = await self.started(
            server_address=network.address,
            retry=ZkRetrySettings(base_sleep_time=0.5, max_retries=9, max_sleep=0.5),
        )
        await network.down()
        await self.interrupted(registry)
        registering = registry.register(node("a"))
        await pause(0.3)
        network.up()
        await registering
        self.assertEqual(await self.asked(registry), [node("a")])

    @steps
    async def test_not_registered(self) -> None:
        """
        A registration fails when its retries are used up, and is not made up for later.
        """
        network = self.network()
        registry = await self.started(server_address=network.address)
        await network.down()
        await self.interrupted(registry)
        began = seconds()
        await self.assertFailure(registry.register(node("a")), Unavailable)
        self.assertGreater(seconds() - began, 0.5)
        self.assertLess(seconds() - began, 4.0)
        network.up()
        await self.connected(registry)
        await pause(0.5)
        self.assertEqual(await self.asked(registry), [])

    @steps
    async def test_new_data_meanwhile(self) -> None:
        """
        New data that cannot be written in time do not cost the node its registration;
        they are there when the connection is.
        """
        network = self.network()
        registry = await self.started(
            server_address=network.address, session_timeout=6.0
        )
        await registry.register(node("a"))
        await network.down()
        await self.interrupted(registry)
        await self.assertFailure(registry.register(node("a", 4000)), Unavailable)
        network.up()
        peer = await self.started()
        listener = FakeServiceListener()
        peer.subscribe(CS, listener)
        await self.known(listener, node("a", 4000))

    @steps
    async def test_stop_during_registration(self) -> None:
        """
        A stop ends a registration that waits for a connection.
        """
        network = self.network()
        registry = await self.started(
            server_address=network.address, retry=ZkRetrySettings()
        )
        await network.down()
        await self.interrupted(registry)
        registering = registry.register(node("a"))
        began = seconds()
        await registry.stop()
        await self.assertFailure(registering, Unavailable)
        self.assertLess(seconds() - began, 1.0)

    @steps
    async def test_quiet(self) -> None:
        """
        A long outage is told once, with its reason, and does not fill the log.
        """
        self.watch_log()
        network = self.network()
        registry = await self.started(server_address=network.address)
        await network.down()
        await pause(4.0)
        network.up()
        await self.connected(registry)
        self.assertEqual(len(self.events("is lost (Connection dropped: ")), 1)
        self.assertEqual(len(self.events("is back")), 1)
        self.assertLess(len(self.events("kazoo")), 6)
        self.assertTrue(self.events("refused"))


class SessionTests(FailureTestCase):
    """
    The session is ended behind the client's back.
    """

    @steps
    async def test_killed(self) -> None:
        """
        A node whose session somebody ends comes back within seconds, under the same
        path and with the same ACL.
        """
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        peer = await self.started()
        listener = await self.listening(peer, node("a"))
        path = self.path("cluster/cs/a")
        before = observer.exists(path)
        # kazoo's client is asked for what only it knows: the session's password.
        identity = registry._client._kazoo.client_id
        thief = KazooClient(self.server.address, client_id=identity, logger=QUIET)
        await deferToThread(thief.start)
        await deferToThread(thief.stop)
        thief.close()
        await until(lambda: getattr(observer.exists(path), "czxid", 0) > before.czxid)
        self.assertNotEqual(observer.exists(path).ephemeralOwner, before.ephemeralOwner)
        self.assertEqual(observer.get_acls(path)[0], observer.get_acls(self.path())[0])
        await self.known(listener, node("a"))

    @steps
    async def test_cannot_be_made_again(self) -> None:
        """
        A node that may not be made again is tried on until it may, which is said once.
        """
        self.watch_log()
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        parent = self.path("cluster/cs")
        ours = observer.get_acls(parent)[0]
        everyone = self.observer("stranger:password")
        observer.set_acls(parent, [make_digest_acl("stranger", "password", all=True)])
        everyone.delete(self.path("cluster/cs/a"))
        await pause(1.5)
        everyone.set_acls(parent, ours)
        await until(lambda: self.events(f"registered {parent}/a again"))
        self.assertTrue(observer.exists(self.path("cluster/cs/a")))
        self.assertEqual(len(self.events("cannot be registered again")), 1)


class ServerTests(FailureTestCase):
    """
    The server itself fails; all its clients with it.
    """

    own_server = True

    async def pair(
        self, **changed: Any
    ) -> tuple[ZooKeeperRegistry, FakeServiceListener, Any]:
        """
        A registry with a node, a peer that listens, and the node's entry.
        """
        registry = await self.started(**changed)
        await registry.register(node("a"))
        peer = await self.started(**changed)
        listener = await self.listening(peer, node("a"))
        return registry, listener, self.entry()

    def entry(self) -> Any:
        """
        The node's entry, as a client sees it that has been connected for this only:
        others may still be trying.
        """
        client = KazooClient(self.server.address, logger=QUIET)
        client.start()
        try:
            return client.exists(self.path("cluster/cs/a"))
        finally:
            client.stop()
            client.close()

    @steps
    async def test_stopped_for_a_moment(self) -> None:
        """
        A server that stops for less than the session has its clients back as they were.
        """
        registry, listener, before = await self.pair()
        self.pause_server()
        await pause(0.7)
        self.server.resume()
        self.assertEqual(await self.asked(registry), [node("a")])
        await pause(0.5)
        self.assertEqual(self.entry(), before)
        self.assertEqual(listener.heard, [])

    @steps
    async def test_stopped_past_the_session(self) -> None:
        """
        After a server has stopped for longer than the session all nodes are there
        again, under the same paths. Whether the sessions are the same depends on what
        the server does first when it goes on.
        """
        registry, listener, _ = await self.pair()
        self.pause_server()
        await pause(4.0)
        self.assertEqual(listener.heard, [])
        await self.assertFailure(registry.lookup(CS), Unavailable)
        self.server.resume()
        resumed = seconds()
        for _ in range(2):
            await self.asked(registry)
            await until(
                lambda: (
                    (entry := self.entry())
                    and entry.ephemeralOwner == registry._client.session_id
                )
            )
            await self.known(listener, node("a"))
            # Sessions that have expired do so within a tick.
            await pause(1.0)
        self.assertLess(seconds() - resumed, 10.0)

    @steps
    async def test_restarted(self) -> None:
        """
        A restarted server finds the sessions again: nobody's node goes.
        """
        # Longer than a restart takes on a busy machine.
        registry, listener, before = await self.pair(session_timeout=10.0)
        await deferToThread(self.server.restart)
        self.assertEqual(await self.asked(registry), [node("a")])
        await pause(0.5)
        self.assertEqual(self.entry(), before)
        self.assertEqual(listener.heard, [])

    @steps
    async def test_killed_for_long(self) -> None:
        """
        One that was away for longer than a session, too: its sessions wait for it, and
        then have their time to be taken up again.
        """
        registry, listener, before = await self.pair(session_timeout=6.0)
        self.server.kill()
        await pause(7.0)
        await deferToThread(self.server.start)
        self.assertEqual(await self.asked(registry), [node("a")])
        await pause(0.5)
        self.assertEqual(self.entry(), before)
        self.assertEqual(listener.heard, [])

    @steps
    async def test_data_lost(self) -> None:
        """
        When a server has lost its data everything is made anew, the namespace and its
        ACL included.
        """
        registry, listener, _ = await self.pair()
        await deferToThread(self.server.restart, lose_data=True)
        observer = self.observer()
        await until(lambda: observer.exists(self.path("cluster/cs/a")))
        await self.known(listener, node("a"))
        self.assertEqual(await self.asked(registry), [node("a")])
        self.assertEqual(
            observer.get_acls(self.path())[0][0].id.id,
            "mpush:IoF5XrL443rOdy6w434vrj+58TQ=",
        )

    @steps
    async def test_something_else_for_a_while(self) -> None:
        """
        When something else answers at the server's port for a while, the registry is
        back when the server is.
        """
        registry, listener, _ = await self.pair()
        self.server.kill()

        class Nonsense(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"\xff" * 64)

        factory = Factory.forProtocol(Nonsense)
        port = _REACTOR.listenTCP(self.server.port, factory, interface="127.0.0.1")
        await pause(2.5)
        await port.stopListening()
        await deferToThread(self.server.start)
        await self.known(listener, node("a"))
        self.assertEqual(await self.asked(registry), [node("a")])
        await until(lambda: self.entry() is not None)

    @steps
    async def test_stop_with_a_silent_server(self) -> None:
        """
        A registry whose server does not answer is stopped within five seconds.
        """
        registry, _, _ = await self.pair()
        self.pause_server()
        began = seconds()
        await registry.stop()
        await registry.stop()
        self.assertLess(seconds() - began, 5.0)

    @steps
    async def test_stop_while_a_silent_server_is_connected_to(self) -> None:
        """
        So is one that tries to connect to such a server.
        """
        registry, _, _ = await self.pair()
        self.pause_server()
        await pause(2.5)
        began = seconds()
        await registry.stop()
        self.assertLess(seconds() - began, 5.0)

    @steps
    async def test_stop_without_a_server(self) -> None:
        """
        Without a server that takes no time.
        """
        registry, _, _ = await self.pair()
        self.server.kill()
        await self.interrupted(registry)
        began = seconds()
        await registry.stop()
        self.assertLess(seconds() - began, 1.0)

    @steps
    async def test_withdrawn_with_a_silent_server(self) -> None:
        """
        Withdrawing a node ends in time, too, and does not fail.
        """
        registry, _, _ = await self.pair()
        self.pause_server()
        began = seconds()
        await registry.deregister(node("a"))
        self.assertLess(seconds() - began, 5.0)
        self.server.resume()
        await until(lambda: self.entry() is None)
