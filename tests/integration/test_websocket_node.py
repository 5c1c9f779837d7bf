"""
A running node and its pages: with devices and senders, over real sockets.
"""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from twisted.internet.task import deferLater

from mpush_tw.core.metrics import DoorMetrics
from mpush_tw.protocol.body import open_body
from mpush_tw.protocol.commands import Command
from mpush_tw.protocol.gateway import GatewayPush
from mpush_tw.protocol.messages import Error, Kick
from mpush_tw.protocol.packet import Packet, encode_packet
from tests.integration.devices import Device
from tests.support import NodeTestCase, RawPeer
from tests.websocket.frames import CLOSE, opening, request
from tests.websocket.peer import WebPeer
from tests.websocket.support import WebNodeTestCase, free_port

WEB, MOBILE, EVERY = 3, 1, 0


class Sender(RawPeer):
    """
    Pushes through the gateway.
    """

    number = 0

    def push(
        self,
        user_id: str | None,
        content: bytes,
        client_type: int = WEB,
        flags: int = 0,
        tags: tuple[str, ...] | None = None,
    ) -> Sender:
        """
        Push, without waiting for the outcome.
        """
        self.number += 1
        body = GatewayPush(user_id, client_type, 3000, content, None, tags).encode()
        self.send(encode_packet(Command.GATEWAY_PUSH, self.number, flags, body))
        return self

    def outcome(self) -> Command | int:
        """
        Wait for an outcome.

        @return: OK, or the code of the error.
        """
        packet = self.packet()
        assert packet is not None
        if packet[0] == Command.OK:
            return Command.OK
        return Error.decode(packet[3]).code


class PageTestCase(WebNodeTestCase):
    """
    A node with a sender.
    """

    async def sender(self) -> Sender:
        """
        Connect a sender.
        """
        sender: Sender = await self.in_thread(Sender, self.ports[3001])
        self.addCleanup(sender.close)
        return sender

    async def page(self, user_id: str, device_id: str = "web-1") -> WebPeer:
        """
        Open a page that is bound.
        """
        page = await self.connect()
        await self.in_thread(page.shake_hands, device_id)
        await self.in_thread(page.bind, user_id)
        return page

    async def device(self, user_id: str) -> Device:
        """
        Connect a phone that is bound.
        """
        device: Device = await self.in_thread(Device, self.ports[3000])
        self.addCleanup(device.close)
        await self.in_thread(device.shake_hands, "phone-1")
        await self.in_thread(device.bind, user_id)
        return device

    @property
    def figures(self) -> DoorMetrics:
        """
        What the door has counted.
        """
        return self.node.metrics.ws


class PushTests(PageTestCase):
    """
    Pushes to pages, to phones, and to both.
    """

    async def test_page_of_the_original(self) -> None:
        """
        The page that the original ships works, frame by frame (clients 4.2, 4.3).
        """
        sender = await self.sender()
        page = await self.connect(
            origin="http://127.0.0.1:8008",
            sec_websocket_extensions="permessage-deflate; client_max_window_bits",
            user_agent="Mozilla/5.0 (X11; Linux x86_64)",
        )

        def go() -> None:
            page.say(
                '{"cmd":2,"flags":16,"sessionId":1,"body":{"deviceId":"test-1001",'
                '"osName":"web","osVersion":"Mozilla/5.0 (X11; Linux x86_64)",'
                '"clientVersion":"1.0"}}'
            )
            frame = page.frame()
            assert frame is not None
            assert frame.payload == b'{"bodyLength":0,"cmd":2,"flags":16,"sessionId":1}'
            page.say('{"cmd":5,"flags":16,"sessionId":2,"body":{"userId":"user-0"}}')
            assert page.hear()["body"] == {"cmd": 5, "data": "bind success"}
            sender.push("user-0", "你好".encode(), flags=8)
            push = page.hear()
            assert (push["cmd"], push["flags"]) == (15, 24), push
            assert push["body"] == {"content": "你好"}, push
            page.say(
                f'{{"cmd":23,"flags":16,"sessionId":{push["sessionId"]},"body":null}}'
            )
            assert sender.outcome() == Command.OK

        await self.in_thread(go)

    async def test_not_acknowledged(self) -> None:
        """
        A page that does not acknowledge in time is not told of as reached.
        """
        page, sender = await self.page("alice"), await self.sender()
        await self.in_thread(sender.push("alice", b"x", flags=8).packet, 0.3)
        self.assertEqual((await self.in_thread(page.hear))["flags"], 24)
        self.assertEqual(self.node.centre.acks.waiting, 1)

    async def test_page_and_phone(self) -> None:
        """
        A user's page and phone do not get in each other's way; a push to all types
        reaches both.
        """
        page, phone = await self.page("alice"), await self.device("alice")
        sender = await self.sender()
        await self.in_thread(sender.push("alice", b"web", WEB).outcome)
        self.assertEqual((await self.in_thread(page.hear))["body"], {"content": "web"})
        await self.in_thread(sender.push("alice", b"both", EVERY).outcome)
        self.assertEqual((await self.in_thread(page.hear))["body"], {"content": "both"})
        self.assertEqual(await self.content_of(phone), b"both")

    async def content_of(self, phone: Device) -> bytes:
        """
        Take the next push of a phone.
        """
        packet: Packet = await self.in_thread(phone.packet)
        self.assertEqual(packet[0], Command.PUSH)
        return open_body(packet[1], packet[3], phone.cipher)

    async def test_broadcast(self) -> None:
        """
        A broadcast reaches pages, those that take compression too, and phones.
        """
        content = b"x" * 20_000
        plain = await self.page("alice")
        small = await self.connect(sec_websocket_extensions="permessage-deflate")
        await self.in_thread(small.shake_hands, "web-2")
        await self.in_thread(small.bind, "bob")
        phone = await self.device("carol")
        sender = await self.sender()
        await self.in_thread(sender.push(None, content[:9000], EVERY).outcome)
        for page in (plain, small):
            found = await self.in_thread(page.hear)
            self.assertEqual(found["body"]["content"], content[:9000].decode())
        self.assertEqual(await self.content_of(phone), content[:9000])

    async def test_tags(self) -> None:
        """
        Tags of pages are like those of phones.
        """
        page, other = await self.connect(), await self.page("bob", "web-2")
        await self.in_thread(page.shake_hands, "web-1")
        await self.in_thread(page.bind, "alice", "news,sport")
        sender = await self.sender()
        await self.in_thread(sender.push(None, b"goal", EVERY, tags=("sport",)).outcome)
        self.assertEqual((await self.in_thread(page.hear))["body"], {"content": "goal"})
        self.assertIs(await self.in_thread(other.hear, 0.1), None)

    async def test_gone(self) -> None:
        """
        A user whose page has been closed is offline.
        """
        page, sender = await self.page("alice"), await self.sender()
        await self.in_thread(page.leave)
        self.assertEqual(await self.in_thread(sender.push("alice", b"x").outcome), 1)

    async def test_upstream(self) -> None:
        """
        A page pushes too; where it wants that, it is acknowledged (S-23).
        """
        page = await self.page("alice")
        page.say({"cmd": 15, "flags": 24, "sessionId": 9, "body": {"content": "up"}})
        self.assertEqual(
            await self.in_thread(page.hear),
            {"cmd": 23, "flags": 16, "sessionId": 9, "bodyLength": 0},
        )
        self.assertEqual(self.node.metrics.upstream, {"accepted": 1})


class KickTests(PageTestCase):
    """
    One route for each type of a user's connections, whatever their door.
    """

    async def test_page_by_page(self) -> None:
        """
        A second page takes the user over; the first one is told, and stays connected.
        """
        first = await self.page("alice", "web-1")
        await self.page("alice", "web-2")
        self.assertEqual(
            (await self.in_thread(first.hear))["body"],
            {"deviceId": "web-1", "userId": "alice"},
        )
        first.say({"cmd": 1})
        self.assertEqual((await self.in_thread(first.hear))["cmd"], 1)

    async def test_phone_by_page(self) -> None:
        """
        What says that it is a phone displaces a phone, page or not.
        """
        phone = await self.device("alice")
        page = await self.connect()
        await self.in_thread(lambda: page.shake_hands("web-1", osName="android"))
        await self.in_thread(page.bind, "alice")
        packet = await self.in_thread(phone.packet)
        self.assertEqual(packet[0], Command.KICK)
        kick = Kick.decode(open_body(packet[1], packet[3], phone.cipher))
        self.assertEqual(kick, Kick("phone-1", "alice"))


class SessionTests(PageTestCase):
    """
    What pages of ours may ask for (docs/websocket.md).
    """

    async def test_session(self) -> None:
        """
        A page takes its session up again on another connection, binds, and is pushed
        to.
        """
        first = await self.connect()
        answer = await self.in_thread(
            lambda: first.shake_hands("web-1", maxHeartbeat=60_000)
        )
        self.assertEqual(answer["body"]["heartbeat"], 60_000)
        await self.in_thread(first.leave)
        page, sender = await self.connect(), await self.sender()
        ticket = answer["body"]["sessionId"]
        page.say(
            {
                "cmd": 7,
                "sessionId": 1,
                "body": {"sessionId": ticket, "deviceId": "web-1", "maxHeartbeat": 1},
            }
        )
        self.assertEqual(
            await self.in_thread(page.hear),
            {
                "cmd": 7,
                "flags": 16,
                "sessionId": 1,
                "bodyLength": 1,
                "body": {"heartbeat": 10_000},
            },
        )
        await self.in_thread(page.bind, "alice")
        await self.in_thread(sender.push("alice", b"hello").outcome)
        self.assertEqual(
            (await self.in_thread(page.hear))["body"], {"content": "hello"}
        )

    async def test_unknown(self) -> None:
        """
        A session that there is not is refused; the page shakes hands instead.
        """
        page = await self.connect()
        page.say({"cmd": 7, "body": {"sessionId": "0" * 32, "deviceId": "web-1"}})
        self.assertEqual((await self.in_thread(page.hear))["body"]["code"], 103)
        await self.in_thread(page.shake_hands, "web-1")

    async def test_heartbeat(self) -> None:
        """
        A heartbeat is answered under its number, before the handshake too.
        """
        page = await self.connect()
        for number in (0, 5):
            page.say({"cmd": 1, "sessionId": number})
            self.assertEqual(
                await self.in_thread(page.hear),
                {"cmd": 1, "flags": 16, "sessionId": number, "bodyLength": 0},
            )

    async def test_proxy_is_off(self) -> None:
        """
        A request to the proxy that is switched off is answered, and the page stays.
        """
        page = await self.page("alice")
        page.say({"cmd": 12, "sessionId": 4, "body": {"uri": "http://a/"}})
        answer = await self.in_thread(page.hear)
        self.assertEqual((answer["cmd"], answer["sessionId"]), (12, 4))
        self.assertEqual(answer["body"]["statusCode"], 503)
        page.say({"cmd": 1})
        self.assertEqual((await self.in_thread(page.hear))["cmd"], 1)


class HttpTests(PageTestCase):
    """
    The page of the port.
    """

    async def test_browser(self) -> None:
        """
        An HTTP client gets the page, by either name.
        """

        def fetch(path: str) -> tuple[str, bytes]:
            with urlopen(f"http://127.0.0.1:{self.web_port}{path}") as answer:
                return answer.headers["content-type"], answer.read()

        for path in ("/", "/index.html"):
            kind, body = await self.in_thread(fetch, path)
            self.assertEqual(kind, "text/html; charset=UTF-8")
            self.assertIn(b"<html", body)

    async def test_kept_alive(self) -> None:
        """
        A connection answers request after request, and then becomes a WebSocket
        (S-24).
        """
        peer: WebPeer = await self.in_thread(lambda: WebPeer(self.web_port, open=False))
        self.addCleanup(peer.close)
        for _ in range(3):
            peer.send(request("GET", "/"))
            status, body = await self.in_thread(peer.read_answer)
            self.assertEqual(status, 200)
            self.assertTrue(body)
        peer.send(opening())
        self.assertIn(" 101 ", await self.in_thread(peer.read_head))
        await self.in_thread(peer.shake_hands, "web-1")

    async def test_refusal_arrives(self) -> None:
        """
        A client that is still sending when it is refused gets to read why.
        """

        def post() -> tuple[int, bytes]:
            peer = WebPeer(self.web_port, open=False)
            peer.send(request("POST", "/", {"content-length": "3000000"}))
            for _ in range(30):
                peer.send(b"x" * 100_000)
            answer = peer.read_answer()
            peer.close()
            return answer

        self.assertEqual(await self.in_thread(post), (413, b"413 Content Too Large"))


class LifeTests(PageTestCase):
    """
    The door as a part of the node.
    """

    async def test_registered(self) -> None:
        """
        The node is listed with its WebSocket port, and without attributes.
        """
        [node] = await self.node.discovery.lookup("/cluster/ws")
        self.assertEqual((node.port, node.attributes), (self.web_port, None))

    async def test_withdrawn(self) -> None:
        """
        Taken off the list, it is taken off there too.
        """
        await self.node.withdraw()
        self.assertEqual(list(await self.node.discovery.lookup("/cluster/ws")), [])
        await self.node.return_to_list()
        self.assertEqual(len(await self.node.discovery.lookup("/cluster/ws")), 1)

    async def test_counted(self) -> None:
        """
        The figures of the door are shown beside those of the others.
        """
        await self.page("alice")
        self.assertEqual(len(self.node.web_connections), 1)
        self.assertEqual(self.figures.opened, 1)
        self.assertEqual(self.figures.packets_in[Command.BIND], 1)
        self.assertEqual(self.node.metrics.conn.opened, 0)

    async def test_stop(self) -> None:
        """
        A page is told that the node goes away, and its user is offline.
        """
        page = await self.page("alice")
        stopping = self.node.stopService()
        self.assertEqual(await self.in_thread(page.farewell), 1001)
        page.close()
        await stopping
        self.assertEqual(len(self.node.web_connections), 0)
        self.assertEqual(len(self.node.local_routes), 0)

    async def test_stop_without_goodbye(self) -> None:
        """
        A page that does not react holds nothing up.
        """
        page = await self.page("alice")
        await self.node.stopService()
        self.assertEqual(len(self.node.web_connections), 0)
        frame = await self.in_thread(page.frame)
        assert frame is not None
        self.assertEqual(frame.opcode, CLOSE)


class SlowPageTests(PageTestCase):
    """
    A page that does not read.
    """

    settings = (
        "mp.limits.max-outbound=256k",
        "mp.push.flow-control.global.limit=100000",
    )

    async def test_busy(self) -> None:
        """
        Pushes to it fail once its buffer is full; what waits for it stays bounded. When
        it reads again it gets what was sent, and pushes succeed again.
        """
        page, sender = await self.page("alice"), await self.sender()
        content = b"x" * 10_000
        sent = 0
        while await self.in_thread(sender.push("alice", content).outcome) == Command.OK:
            sent += 1
            self.assertLess(sent, 2000)
        [connection] = self.node.web_connections
        self.assertTrue(connection.busy)
        self.assertLess(connection.transport.queued, 256 * 1024 + 65536)

        def read() -> None:
            for _ in range(sent):
                packet = page.hear()
                assert packet is not None
                assert packet["body"]["content"] == content.decode()

        await self.in_thread(read)
        await self.until_not_busy(connection)
        self.assertEqual(
            await self.in_thread(sender.push("alice", b"again").outcome), Command.OK
        )
        self.assertEqual(
            (await self.in_thread(page.hear))["body"], {"content": "again"}
        )

    async def until_not_busy(self, connection: Any) -> None:
        """
        Wait for the buffer to be short again.
        """
        for _ in range(200):
            if not connection.busy:
                return
            await deferLater(self.node.reactor, 0.01)
        self.fail("still busy")

    async def test_answers_not_read(self) -> None:
        """
        One that asks and asks, and does not read the answers, is not read from.
        """
        page = await self.page("alice")
        page.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        page.socket.settimeout(2)
        asked = json.dumps({"cmd": 1, "sessionId": 5})

        def ask() -> bool:
            for _ in range(100_000):
                page.say(asked)
                if page.ended:
                    return True
            return False

        # It could not send all: the node stopped reading. Nor was it cut off.
        self.assertTrue(await self.in_thread(ask))
        [connection] = self.node.web_connections
        self.assertTrue(connection.connected)
        self.assertLess(connection.transport.queued, 256 * 1024 + 65536)


class LimitTests(PageTestCase):
    """
    What an operator limits.
    """

    settings = (
        "mp.limits.max-per-address=3",
        "mp.limits.handshake-timeout=1s",
        'mp.net.ws-allowed-origins=["https://example.com"]',
    )

    async def test_too_many(self) -> None:
        """
        Above the limit of an address, which phones and pages share, a connection is
        told so in HTTP.
        """
        await self.device("alice")
        await self.page("bob")
        await self.page("carol", "web-2")
        peer: WebPeer = await self.in_thread(lambda: WebPeer(self.web_port, open=False))
        self.addCleanup(peer.close)
        peer.send(opening())
        self.assertEqual(
            await self.in_thread(peer.read_answer), (503, b"too many connections")
        )
        self.assertTrue(await self.in_thread(peer.wait_end))

    async def test_no_handshake(self) -> None:
        """
        A page that does not shake hands is cut off.
        """
        page = await self.connect()
        self.assertTrue(await self.in_thread(page.wait_end, 3))
        self.assertEqual(self.figures.closed, {"handshake-timeout": 1})

    async def test_origin(self) -> None:
        """
        A page of another site may not connect.
        """
        peer: WebPeer = await self.in_thread(lambda: WebPeer(self.web_port, open=False))
        self.addCleanup(peer.close)
        peer.send(opening(origin="https://example.net"))
        status, _ = await self.in_thread(peer.read_answer)
        self.assertEqual(status, 403)
        page = await self.connect(origin="https://example.com")
        await self.in_thread(page.shake_hands, "web-1")


class MetricsTests(PageTestCase):
    """
    What Prometheus and the console get to know.
    """

    settings = (f"mp.net.metrics-server-port={free_port()}",)

    async def test_metrics(self) -> None:
        """
        Prometheus sees the door beside the others.
        """
        await self.page("alice")
        port = self.node.settings.net.metrics_server_port

        def fetch() -> str:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())

        text = await self.in_thread(fetch)
        figures = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("server") == "ws"
        }
        self.assertEqual(figures["mpush_connections"], 1)
        self.assertEqual(figures["mpush_connections_unsecured"], 0)
        self.assertEqual(figures["mpush_connections_opened_total"], 1)
        self.assertEqual(figures["mpush_accept_pauses_total"], 0)
        self.assertIn("mpush_packets_total", figures)

    async def test_console(self) -> None:
        """
        The console counts connections of pages by themselves.
        """
        await self.page("alice")
        port = self.node.ports[0].getHost().port

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", port), 5) as console:
                console.sendall(b"count ws\r\ncount conn\r\nquit\r\n")
                answer = b""
                while data := console.recv(4096):
                    answer += data
                return answer

        answer = await self.in_thread(ask)
        self.assertIn(b"1\r\n\r\n0\r\n\r\n", answer)


class WithoutTests(NodeTestCase):
    """
    A node as it is by default: without a WebSocket port.
    """

    async def test_off(self) -> None:
        """
        Nothing listens, and nothing is listed.
        """
        self.assertIs(self.node.websocket_listener, None)
        self.assertEqual(list(await self.node.discovery.lookup("/cluster/ws")), [])
        self.assertEqual(len(self.node.web_connections), 0)
