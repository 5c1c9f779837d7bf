"""
Tests for L{mpush_tw.client._alloc}, and for what the client makes of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from mpush_tw.client import (
    Client,
    ClientSettings,
    ClientState,
    Disconnected,
    ServerAddress,
)
from mpush_tw.client._alloc import MAX_ANSWER, MAX_REDIRECTS, AllocLookup
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.commands import Command
from tests.client.support import (
    PUBLIC_KEY_TEXT,
    ClientTestCase,
    FakeNetwork,
    FakePeer,
)
from tests.client.test_loopback import certificate

A, B, C = (("10.0.0.1", 3000), ("10.0.0.2", 3000), ("10.0.0.3", 3000))
FIRST, SECOND = ("192.0.2.1", 9999), ("192.0.2.2", 80)
FIRST_URL, SECOND_URL = "http://192.0.2.1:9999/", "http://192.0.2.2/alloc?x=1"


def listed(*servers: tuple[str, int]) -> str:
    """
    Write servers as alloc does.
    """
    return ",".join(f"{host}:{port}" for host, port in servers)


class HttpPeer(FakePeer):
    """
    A web server's end of a connection.
    """

    def __init__(self, alloc: FakeAlloc, server: Any, protocol: Any) -> None:
        super().__init__(server, protocol)
        self._alloc = alloc

    def data_received(self, data: bytes) -> None:
        self.raw += data
        if self.raw.endswith(b"\r\n\r\n"):
            self._alloc.requests.append(self.raw.decode())
            if self._alloc.answer is not None:
                self.send_raw(self._alloc.answer)
                self.close()


class FakeAlloc:
    """
    An alloc service.

    @ivar answer: What it answers, the whole of it; C{None} for nothing.
    @ivar requests: What it was asked.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: bytes | None = None

    def say(self, body: str, status: str = "200 OK", head: str = "") -> None:
        """
        Answer so from now on.
        """
        self.answer = (
            f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body.encode())}\r\n\r\n"
            f"{body}"
        ).encode()


class AllocNetwork(FakeNetwork):
    """
    A network with two alloc services beside the servers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allocs = {FIRST: FakeAlloc(), SECOND: FakeAlloc()}

    def make_peer(self, address: tuple[str, int], protocol: Any) -> FakePeer:
        alloc = self.allocs.get(address)
        if alloc is None:
            return super().make_peer(address, protocol)
        return HttpPeer(alloc, self.server, protocol)


class AllocTestCase(ClientTestCase):
    """
    Clients that are told of alloc and of no server.
    """

    network: AllocNetwork

    def setUp(self) -> None:
        super().setUp()
        self.network = AllocNetwork()
        self.server = self.network.server
        self.alloc = self.network.allocs[FIRST]
        self.other = self.network.allocs[SECOND]

    def settings(self, **settings: Any) -> ClientSettings:
        return super().settings(
            **{
                "server_host": None,
                "server_port": 0,
                "alloc_server": FIRST_URL,
                **settings,
            }
        )

    def tried(self) -> list[tuple[str, int]]:
        """
        Where connections were tried since the last call.
        """
        found, self.network.attempts[:] = list(self.network.attempts), []
        return found


class ListTests(AllocTestCase):
    """
    From alloc to a server.
    """

    def test_first_of_the_list(self) -> None:
        """
        The client asks, and connects to the first server that is named.
        """
        self.alloc.say(listed(A, B, C))
        client = self.start_client()
        self.assertEqual(self.tried(), [FIRST, A])
        self.assertTrue(client.is_online)
        self.assertEqual(client.server, A)

    def test_request(self) -> None:
        """
        The URL is asked for exactly as it was configured.
        """
        self.other.say(listed(A))
        self.start_client(alloc_server=SECOND_URL)
        (request,) = self.other.requests
        first, *headers = request.split("\r\n")
        self.assertEqual(first, "GET /alloc?x=1 HTTP/1.1")
        self.assertIn("Host: 192.0.2.2", headers)
        self.assertIn("Cache-Control: no-cache", headers)

    def test_dead_server(self) -> None:
        """
        A client that was handed a dead address goes on to the next.
        """
        self.network.down |= {A, B}
        self.alloc.say(listed(A, B, C))
        client = self.start_client()
        self.assertEqual(self.tried(), [FIRST, A, B, C])
        self.assertTrue(client.is_online)

    def test_silent_server(self) -> None:
        """
        One that does not answer costs C{connect_timeout}.
        """
        self.network.black_holes.add(A)
        self.alloc.say(listed(A, B))
        client = self.start_client(connect_timeout=2)
        self.network.pass_time(2)
        self.assertEqual(self.tried(), [FIRST, A, B])
        self.assertTrue(client.is_online)

    def test_white_space(self) -> None:
        """
        White space, empty items and a line feed at the end do no harm; IPv6 is
        understood.
        """
        self.alloc.say(" 10.0.0.1:3000 ,,10.0.0.2:3000\r\n,[::1]:3000,\n")
        self.network.down |= {A, B, ("::1", 3000)}
        self.start_client()
        self.assertEqual(self.tried(), [FIRST, A, B, ("::1", 3000)])

    def test_bad_items(self) -> None:
        """
        What is no address is left out.
        """
        self.alloc.say("10.0.0.1,:3000,10.0.0.1:x,a:b:c,10.0.0.2:0,10.0.0.2:3000,\xff")
        self.start_client()
        self.assertEqual(self.tried(), [FIRST, B])

    def test_nothing_named(self) -> None:
        """
        A client that is told of nobody at all is refused when it is made.
        """
        error = self.assertRaises(
            ConfigError, self.make_client, alloc_server=(), server_host=None
        )
        self.assertIn("alloc", error.problem)

    def test_connected_server(self) -> None:
        """
        Without a connection there is no server to tell of.
        """
        self.assertIsNone(self.make_client().server)


class AgainTests(AllocTestCase):
    """
    When alloc is asked again.
    """

    def test_not_while_the_list_is_good(self) -> None:
        """
        After a loss the server that worked is tried first, then the others of the list;
        alloc is not asked.
        """
        self.alloc.say(listed(A, B))
        client = self.start_client()
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.tried(), [FIRST, A, A])
        self.network.down.add(A)
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.tried(), [A, B])
        self.assertTrue(client.is_online)
        self.assertEqual(len(self.alloc.requests), 1)

    def test_when_all_have_failed(self) -> None:
        """
        When no server of the list can be reached alloc is asked at once, and the new
        list is tried.
        """
        self.alloc.say(listed(A, B))
        client = self.start_client()
        self.alloc.say(listed(C))
        self.network.down |= {A, B}
        self.tried()
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.tried(), [A, B, FIRST, C])
        self.assertEqual(client.server, C)

    def test_once_an_attempt(self) -> None:
        """
        An alloc that names dead servers only is asked once in each attempt.
        """
        self.network.down |= {A, B}
        self.alloc.say(listed(A, B))
        client = self.start_client()
        self.assertEqual(self.tried(), [FIRST, A, B])
        self.assertEqual(client.state, ClientState.WAITING)
        self.network.pass_time(0.6)
        self.assertEqual(self.tried(), [FIRST, A, B])

    def test_servers_that_refuse(self) -> None:
        """
        Servers that accept and do not shake hands wear the list out as well.
        """
        self.server.refuse(Command.HANDSHAKE)
        self.alloc.say(listed(A, B))
        self.start_client()
        self.network.pass_time(4)
        self.assertEqual(self.tried()[:4], [FIRST, A, B, FIRST])

    def test_a_session_makes_the_list_good(self) -> None:
        """
        A failure before a session does not count after it.
        """
        self.network.down.add(A)
        self.alloc.say(listed(A, B))
        self.start_client()
        self.network.down.clear()
        self.tried()
        self.server.peer.close()
        self.network.pass_time(1)
        self.server.peer.close()
        self.network.pass_time(3)
        self.assertEqual(self.tried(), [B, B])


class NoAnswerTests(AllocTestCase):
    """
    Alloc services that are of no help.
    """

    def unhelpful(self, **settings: Any) -> Client:
        """
        Have a client that gets nothing from alloc.

        @return: The client, which waits for its next attempt.
        """
        client = self.start_client(**settings)
        self.network.pass_time(6)
        self.assertFalse(client.is_online)
        self.assertIsInstance(client.last_failure, Disconnected)
        self.assertIn(FIRST_URL, str(client.last_failure))
        return client

    def test_down(self) -> None:
        """
        An alloc that cannot be reached is tried again with the next attempt.
        """
        self.network.down.add(FIRST)
        client = self.unhelpful()
        self.network.down.clear()
        self.alloc.say(listed(A))
        self.network.pass_time(60)
        self.assertTrue(client.is_online)

    def test_other_status(self) -> None:
        """
        Every status but 200 is a failure.
        """
        for status in ("404 Not Found", "503 Busy", "204 No Content", "500 x"):
            self.alloc.say("" if status[:3] == "204" else listed(A), status)
            client = self.unhelpful()
            self.assertIn(f"status {status[:3]}", str(client.last_failure))

    def test_empty(self) -> None:
        """
        An empty answer, or one without any address, names nobody.
        """
        for body in ("", "\n", "<html>captive portal</html>"):
            self.alloc.say(body)
            client = self.unhelpful()
            self.assertIn("names no server", str(client.last_failure))

    def test_too_long(self) -> None:
        """
        An answer without end is not read to its end.
        """
        self.alloc.say("x" * (MAX_ANSWER + 1))
        client = self.unhelpful()
        self.assertIn(f"more than {MAX_ANSWER} bytes", str(client.last_failure))

    def test_cut(self) -> None:
        """
        Half an answer is none: its last port may be cut.
        """
        self.alloc.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n10.0.0.1:30"
        self.unhelpful()
        self.assertNotIn(("10.0.0.1", 30), self.network.attempts)

    def test_no_http(self) -> None:
        """
        What speaks another protocol is no alloc.
        """
        self.alloc.answer = b"SSH-2.0-OpenSSH_9.9\r\n"
        self.unhelpful()

    def test_silent(self) -> None:
        """
        One that says nothing is given up after the time-out, to connect and to read.
        """
        client = self.start_client(alloc_timeout=1)
        self.network.pass_time(1.9)
        self.assertEqual(client.state, ClientState.CONNECTING)
        self.network.pass_time(0.1)
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertIn("no answer in time", str(client.last_failure))

    def test_black_hole(self) -> None:
        """
        One to which no connection comes about is given up after the time-out.
        """
        self.network.black_holes.add(FIRST)
        client = self.start_client(alloc_timeout=1)
        self.network.pass_time(2)
        self.assertEqual(client.state, ClientState.WAITING)
        self.assertIn("no answer in time", str(client.last_failure))

    # ----------------------------------------------------------- other ways

    def test_next_alloc(self) -> None:
        """
        Of several services the next one is asked.
        """
        self.network.down.add(FIRST)
        self.other.say(listed(B))
        client = self.start_client(alloc_server=(FIRST_URL, SECOND_URL))
        self.assertEqual(self.tried(), [FIRST, SECOND, B])
        self.assertTrue(client.is_online)

    def test_configured_servers(self) -> None:
        """
        The servers that the settings name are the last resort.
        """
        self.network.down.add(FIRST)
        client = self.start_client(server_host="10.0.0.3", server_port=3000)
        self.assertEqual(self.tried(), [FIRST, C])
        self.assertTrue(client.is_online)

    def test_not_while_alloc_answers(self) -> None:
        """
        While alloc answers its word counts alone.
        """
        self.network.down.add(A)
        self.alloc.say(listed(A))
        self.start_client(server_host="10.0.0.3", server_port=3000)
        self.assertEqual(self.tried(), [FIRST, A])

    def test_last_list(self) -> None:
        """
        When alloc does not answer any more the last list is tried, then the servers
        that the settings name; none of them twice in an attempt.
        """
        self.alloc.say(listed(A, B))
        self.start_client(server_host="10.0.0.3", server_port=3000)
        self.network.down |= {A, B, C, FIRST}
        self.tried()
        self.server.peer.close()
        self.network.pass_time(0.6)
        self.assertEqual(self.tried(), [A, B, FIRST, C])
        self.network.pass_time(1.1)
        self.assertEqual(self.tried(), [FIRST, A, B, C])

    def test_alloc_is_back(self) -> None:
        """
        When alloc answers again its list takes the place of all that.
        """
        self.network.down |= {FIRST, C}
        self.start_client(server_host="10.0.0.3", server_port=3000)
        self.network.down.remove(FIRST)
        self.alloc.say(listed(A, B))
        self.tried()
        self.network.pass_time(0.6)
        self.assertEqual(self.tried(), [FIRST, A])
        self.network.down |= {A, B}
        self.alloc.answer = None
        self.server.peer.close()
        self.network.pass_time(1)
        self.assertEqual(self.tried(), [A, B, FIRST])


class RedirectTests(AllocTestCase):
    """
    Alloc services that have moved.
    """

    def redirect(self, location: str, status: str = "302 Found") -> None:
        """
        Have the first service lead somewhere else.
        """
        self.alloc.say("", status, f"Location: {location}\r\n")

    def test_followed(self) -> None:
        """
        Redirects are followed.
        """
        for status in ("301 a", "302 b", "303 c", "307 d", "308 e"):
            self.redirect(SECOND_URL, status)
            self.other.say(listed(A))
            client = self.start_client()
            self.assertTrue(client.is_online, status)

    def test_relative(self) -> None:
        """
        A redirect may name a path only.
        """
        self.redirect("/elsewhere")
        self.start_client()
        self.assertTrue(self.alloc.requests[1].startswith("GET /elsewhere "))

    def test_in_circles(self) -> None:
        """
        A service that leads back to itself is asked a few times and given up.
        """
        self.redirect(FIRST_URL)
        client = self.start_client()
        self.assertEqual(len(self.alloc.requests), MAX_REDIRECTS + 1)
        self.assertIn("redirects", str(client.last_failure))

    def test_nowhere(self) -> None:
        """
        A redirect without a target, or to something else than the web, is a failure.
        """
        for location in ("", "ftp://192.0.2.2/", "file:///etc/passwd"):
            self.redirect(location)
            client = self.start_client()
            self.assertEqual(client.state, ClientState.WAITING)
        self.assertEqual(self.other.requests, [])


class StopTests(AllocTestCase):
    """
    Ending while alloc is being asked.
    """

    def test_stop(self) -> None:
        """
        A stop closes the connection to alloc, and nothing comes of its answer.
        """
        client = self.start_client()
        peer = self.server.peer
        client.stop()
        self.network.settle()
        self.assertTrue(peer.client_closed)
        self.assertEqual(client.state, ClientState.STOPPED)

    def test_stop_before_it_is_connected(self) -> None:
        """
        Nor does a stop leave an attempt to connect.
        """
        self.network.black_holes.add(FIRST)
        client = self.start_client()
        client.stop()
        self.network.settle()
        self.assertTrue(self.network.connectors[0].stoppedConnecting)

    def test_stop_while_it_is_read(self) -> None:
        """
        A stop in the middle of an answer closes the connection, too.
        """
        self.alloc.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n10.0.0"
        self.patch(HttpPeer, "close", lambda peer: None)
        client = self.start_client()
        peer = self.server.peer
        client.stop()
        self.network.settle()
        self.assertTrue(peer.client_closed)

    def test_no_other_is_asked(self) -> None:
        """
        After a stop the next service is not asked.
        """
        self.other.say(listed(A))
        for sent in (None, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n10.0"):
            self.alloc.answer = sent
            client = self.start_client(alloc_server=(FIRST_URL, SECOND_URL))
            client.stop()
            self.network.settle()
            self.assertEqual(self.tried(), [FIRST])
            self.patch(HttpPeer, "close", lambda peer: None)

    def test_network_goes_and_comes(self) -> None:
        """
        When the network goes alloc is not waited for, when it comes it is asked at
        once.
        """
        client = self.start_client()
        client.on_net_state_change(False)
        self.network.settle()
        self.assertEqual(client.state, ClientState.OFFLINE)
        self.alloc.say(listed(A))
        client.on_net_state_change(True)
        self.network.settle()
        self.assertTrue(client.is_online)


class Page(Resource):
    """
    Answers with one text, in its own way.
    """

    isLeaf = True

    def __init__(self, body: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._body = body

    def render_GET(self, request: Request) -> Any:
        # Without a length: chunked, as the original's empty list.
        request.write(self._body)
        deferLater(reactor, 0).addCallback(lambda _: request.finish())
        return NOT_DONE_YET


class HttpsTests(TestCase):
    """
    Real sockets, with TLS.
    """

    timeout = 20

    def setUp(self) -> None:
        pem, private = certificate()
        self.authority = Path(self.mktemp())
        self.authority.write_bytes(pem)
        site: Any = Site(Page(b"10.0.0.1:3000"))  # type: ignore[no-untyped-call]
        site.noisy = False
        some_reactor: Any = reactor
        port = some_reactor.listenTCP(
            0,
            TLSMemoryBIOFactory(private.options(), False, site),
            interface="127.0.0.1",
        )
        self.addCleanup(port.stopListening)
        self.url = f"https://127.0.0.1:{port.getHost().port}/"

    def find(self, **settings: Any) -> Deferred[list[ServerAddress]]:
        """
        Ask with these settings.
        """
        made = ClientSettings(
            device_id="dev-1",
            public_key=PUBLIC_KEY_TEXT,
            alloc_server=self.url,
            **settings,
        )
        lookup = AllocLookup(made, reactor, Logger())  # type: ignore[arg-type]
        return Deferred.fromCoroutine(lookup.find())

    async def test_known_authority(self) -> None:
        """
        A certificate of the authority that is named is believed.
        """
        self.assertEqual(await self.find(verify_tls=self.authority), [A])

    async def test_unchecked(self) -> None:
        """
        Checking can be switched off, as the original does not check.
        """
        self.assertEqual(await self.find(verify_tls=False), [A])

    async def test_unknown_authority(self) -> None:
        """
        By default a certificate that nobody vouches for is refused.
        """
        try:
            await self.find()
        except Disconnected as error:
            self.assertIn("certificate", str(error).lower())
        else:
            self.fail("it was believed")
