"""
Devices that come back to a node of the other kind by their session (check 11).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mpush_tw.client import MemorySessionStorage
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.messages import Error, FastConnect
from mpush_tw.protocol.packet import encode_packet
from tests.interop.processes import SUCCESS, until
from tests.interop.support import InteropTestCase, full_set
from tests.support import RawPeer

test_suite = full_set(__name__)

if TYPE_CHECKING:
    _Base = InteropTestCase
else:
    # Only what derives from a check and from the test case is run.
    _Base = object


class Sessions(_Base):
    """
    A handshake on one node, a fast connect on the other.
    """

    first_kind: str
    second_kind: str

    async def setUp(self) -> None:
        super().setUp()
        self.here = self.node(self.first_kind).doors
        self.there = self.node(self.second_kind).doors
        self.sender = await self.a_sender("java")

    async def test_our_device(self) -> None:
        """
        Our device comes back without a handshake and has encrypted traffic.
        """
        storage = MemorySessionStorage()
        first = await self.our_device(self.user, self.here, self.user, storage=storage)
        await self.cluster_has_session(storage.get())
        await first.leave()
        known = self.cluster.sessions()
        again = await self.our_device(self.user, self.there, self.user, storage=storage)
        self.assertEqual(self.cluster.sessions(), known, "no new session")
        outcome = await self.sender.push(self.user, "welcome back", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.there.gateway)
        await again.pushed("welcome back")

    async def test_java_device(self) -> None:
        """
        Their device comes back without a handshake and has encrypted traffic.
        """
        storage = Path(tempfile.mkdtemp(prefix="mpush-interop-session-"))
        self.addCleanup(shutil.rmtree, storage)
        first = await self.java_device(self.user, self.here, self.user, storage=storage)
        token = await until(
            lambda: (
                (storage / "token.dat").exists() and (storage / "token.dat").read_text()
            ),
            "the session to be saved",
        )
        await self.cluster_has_session(token)
        first.stop()
        await until(lambda: not self.cluster.online(self.user), "the user to leave")
        known = self.cluster.sessions()
        again = await self.java_device(
            self.user, self.there, self.user, storage=storage
        )
        self.assertEqual(self.cluster.sessions(), known, "no new session")
        outcome = await self.sender.push(self.user, "welcome back", "AUTO_ACK")
        self.assertEqual(outcome.code, SUCCESS)
        self.assertEqual(outcome.location, self.there.gateway)
        await again.pushed("welcome back")

    async def test_other_device(self) -> None:
        """
        Another device with the session of this one is refused as an invalid device.
        """
        storage = MemorySessionStorage()
        await self.our_device(self.user, self.here, storage=storage)
        session_id = await self.cluster_has_session(storage.get())
        self.assert_refused(session_id, "a thief", ErrorCode.INVALID_DEVICE)

    async def test_unknown_session(self) -> None:
        """
        A session that nobody stored has expired.
        """
        self.assert_refused("0" * 32, "a stranger", ErrorCode.SESSION_EXPIRED)

    async def cluster_has_session(self, token: str | None) -> str:
        """
        Wait until the session that a device keeps is in the store.

        @return: Its id.
        """
        assert token is not None
        session_id = token.partition(",")[0]
        key = f"mp:rs:{session_id}"
        await until(lambda: self.cluster.redis.cli("EXISTS", key) == "1", "the session")
        return session_id

    def assert_refused(
        self, session_id: str, device_id: str, expected: ErrorCode
    ) -> None:
        """
        Try a fast connect to the second node that has to be refused. The published
        original gives the reason only, with the code 0; later ones give both.
        """
        peer = RawPeer(self.there.port)
        self.addCleanup(peer.close)
        body = FastConnect(session_id, device_id, 10000, 180000).encode()
        peer.send(encode_packet(Command.FAST_CONNECT, 1, 0, body))
        packet = peer.packet()
        assert packet is not None
        self.assertEqual(packet[0], Command.ERROR)
        error = Error.decode(packet[3])
        self.assertEqual(error.cmd, Command.FAST_CONNECT)
        self.assertEqual(error.reason, expected.reason)
        self.assertEqual(error.code, expected if self.second_kind == "ours" else 0)


class Check11FromJavaTests(Sessions, InteropTestCase):
    """
    Handshake on their node, fast connect on ours.
    """

    first_kind, second_kind = "java", "ours"


class Check11FromOursTests(Sessions, InteropTestCase):
    """
    Handshake on our node, fast connect on theirs.
    """

    first_kind, second_kind = "ours", "java"


class Check11OriginalTests(Sessions, InteropTestCase):
    """
    For comparison: from one of their nodes to another.
    """

    first_kind, second_kind = "java", "other java"
