"""
Tests for L{mpush_tw.client.settings}.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import attrs

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.client import (
    Client,
    ClientSettings,
    FileSessionStorage,
    KickPolicy,
    MemorySessionStorage,
    OnHandshakeRefused,
    Reconnect,
)
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import RsaPublicKey
from tests.client.support import PRIVATE_KEY, PUBLIC_KEY_TEXT


def settings(**given: Any) -> ClientSettings:
    """
    Settings of a device that has nothing but an id.
    """
    return ClientSettings(**({"device_id": "d"} | given))


class DefaultsTests(SynchronousTestCase):
    """
    What a device gets that says nothing else.
    """

    def test_defaults(self) -> None:
        """
        The defaults are those of clients 10.1.
        """
        made = settings()
        expected = {
            "alloc_server": (),
            "server_host": None,
            "servers": (),
            "verify_tls": True,
            "public_key": None,
            "os_name": "linux",
            "user_id": None,
            "tags": None,
            "bind_data": None,
            "min_heartbeat": 240_000,
            "max_heartbeat": 240_000,
            "aes_key_length": 16,
            "compress_limit": 1024,
            "handshake_timeout": 3.0,
            "handshake_retries": 0,
            "bind_timeout": 3.0,
            "bind_retries": 1,
            "connect_timeout": 5.0,
            "alloc_timeout": 3.0,
            "enable_http_proxy": True,
            "http_timeout": 10.0,
            "push_timeout": 1.0,
            "max_packet_size": 10 * 1024 * 1024,
            "max_pending": 1000,
            "reconnect": Reconnect.STANDARD,
            "kick_policy": KickPolicy.FORGET,
            "on_handshake_refused": OnHandshakeRefused.BACKOFF,
            "encrypt_required": True,
            "auto_heartbeat": True,
        }
        self.assertEqual({name: getattr(made, name) for name in expected}, expected)

    def test_storage_is_not_shared(self) -> None:
        """
        Two clients of the same settings get a memory storage each.
        """
        made = settings()
        first, second = made.new_storage(), made.new_storage()
        self.assertIsInstance(first, MemorySessionStorage)
        self.assertIsNot(first, second)

    def test_derived_settings(self) -> None:
        """
        The settings of a fleet are made from one another, with the key loaded once.
        """
        made = settings(public_key=PUBLIC_KEY_TEXT)
        other = attrs.evolve(made, device_id="e")
        self.assertEqual((other.device_id, other.max_pending), ("e", 1000))
        self.assertIs(other.public_key, made.public_key)

    def test_secrets_are_not_shown(self) -> None:
        """
        The text of the settings has no bind data.
        """
        self.assertNotIn("token-1", repr(settings(bind_data="token-1")))


class ValuesTests(SynchronousTestCase):
    """
    Values, given as such or as text.
    """

    def refused(self, name: str, *values: Any) -> None:
        """
        Each value is refused, with the name of the setting.
        """
        for value in values:
            error = self.assertRaises(ConfigError, settings, **{name: value})
            self.assertEqual(error.key, name)

    def test_device_id(self) -> None:
        """
        A device id is needed, and may not hold commas or control characters.
        """
        self.refused("device_id", "", None, "a,b", "a\nb", "a\x85", 7)
        self.assertEqual(settings(device_id="é 推").device_id, "é 推")

    def test_described(self) -> None:
        """
        Commas would make the stored session unreadable for servers.
        """
        for name in ("os_name", "os_version", "client_version"):
            self.refused(name, "a,b")
        self.assertIsNone(settings(os_version="").os_version)

    def test_heartbeats_are_milliseconds(self) -> None:
        """
        A number counts milliseconds, a text says its unit.
        """
        self.assertEqual(
            [
                settings(max_heartbeat=value).max_heartbeat
                for value in (10_000, "10000", "10s", "1.5m", "500ms")
            ],
            [10_000, 10_000, 10_000, 90_000, 500],
        )
        self.refused("max_heartbeat", -1, "soon", float("nan"), None, True, "1e9s")

    def test_timeouts_are_seconds(self) -> None:
        """
        A number counts seconds; nothing waits for no time or for ever.
        """
        self.assertEqual(
            [
                settings(bind_timeout=value).bind_timeout
                for value in (2, 0.5, "4", "500ms", "2m")
            ],
            [2.0, 0.5, 4.0, 0.5, 120.0],
        )
        for name in (
            "handshake_timeout",
            "bind_timeout",
            "connect_timeout",
            "alloc_timeout",
            "http_timeout",
            "push_timeout",
        ):
            self.refused(name, 0, -1, "", float("inf"), 10**9)

    def test_numbers(self) -> None:
        """
        Whole numbers may be texts; what is too small is refused.
        """
        self.assertEqual(settings(max_pending="7").max_pending, 7)
        self.refused("max_pending", 0, "many", 1.5, True, 2**31)
        self.refused("bind_retries", -1)
        self.refused("handshake_retries", -1)
        self.refused("max_packet_size", 10)
        self.refused("aes_key_length", 24, 32)

    def test_flags(self) -> None:
        """
        Switches may be texts.
        """
        made = [
            settings(auto_heartbeat=v).auto_heartbeat for v in ("off", "YES", False)
        ]
        self.assertEqual(made, [False, True, False])
        self.refused("auto_heartbeat", "maybe", 1, None)

    def test_choices(self) -> None:
        """
        Policies are named as in the documentation.
        """
        made = settings(
            reconnect="compat", kick_policy="stop", on_handshake_refused="stop"
        )
        self.assertEqual(
            (made.reconnect, made.kick_policy, made.on_handshake_refused),
            (Reconnect.COMPAT, KickPolicy.STOP, OnHandshakeRefused.STOP),
        )
        self.refused("reconnect", "never")

    def test_compress_limit(self) -> None:
        """
        0 and less mean that nothing is compressed.
        """
        self.assertEqual(settings(compress_limit=10).compress_threshold, 10)
        self.assertGreater(settings(compress_limit=0).compress_threshold, 10**9)
        self.assertGreater(settings(compress_limit=-5).compress_threshold, 10**9)

    def test_public_key_forms(self) -> None:
        """
        The key may be Base64 with white space, PEM or DER.
        """
        pem = PRIVATE_KEY.public.pem()
        wrapped = "\n ".join(PUBLIC_KEY_TEXT[i : i + 20] for i in range(0, 300, 20))
        for form in (
            PUBLIC_KEY_TEXT,
            wrapped,
            pem,
            pem.decode(),
            base64.b64decode(PUBLIC_KEY_TEXT),
        ):
            key = settings(public_key=form).public_key
            assert isinstance(key, RsaPublicKey)
            self.assertEqual(key.modulus, PRIVATE_KEY.public.modulus)
        self.refused("public_key", "nonsense", "", PUBLIC_KEY_TEXT[:40], 5)

    def test_addresses(self) -> None:
        """
        server_host comes first, then servers, in whatever form they are given.
        """
        first = settings(server_host="a", server_port="1", servers="b:2, [::1]:3,")
        self.assertEqual(first.addresses, (("a", 1), ("b", 2), ("::1", 3)))
        second = settings(servers=[("b", 2), "c:3"])
        self.assertEqual(second.addresses, (("b", 2), ("c", 3)))
        third = settings(server_host="[::1]", server_port=4)
        self.assertEqual(third.addresses, (("::1", 4),))
        self.refused("servers", "b", ["b:x"], [("b", 0)], [5], 5)
        self.refused("server_host", "no-port")

    def test_alloc_and_tls(self) -> None:
        """
        Several alloc URLs may be given; certificates are checked, not, or against a
        file.
        """
        made = settings(alloc_server="http://a/,https://b:99/x", verify_tls="/ca.pem")
        self.assertEqual(made.alloc_server, ("http://a/", "https://b:99/x"))
        self.assertEqual(made.verify_tls, Path("/ca.pem"))
        self.assertFalse(settings(verify_tls="off").verify_tls)
        self.refused("alloc_server", "a:99", "ftp://a/")
        self.refused("verify_tls", "", 5)

    def test_session_storage_forms(self) -> None:
        """
        Memory, a path, or an object with three methods.
        """
        own = MemorySessionStorage()
        self.assertIs(settings(session_storage=own).new_storage(), own)
        path = self.mktemp()
        for form in (path, Path(path), f"file({path})"):
            self.assertIsInstance(
                settings(session_storage=form).session_storage, FileSessionStorage
            )
        self.assertIsNone(settings(session_storage="memory").session_storage)
        self.refused("session_storage", 5, object())

    def test_bind_data(self) -> None:
        """
        The data is a text or a function.
        """
        self.refused("bind_data", 5, b"x")


class MappingTests(SynchronousTestCase):
    """
    Settings from a mapping.
    """

    def test_java_names(self) -> None:
        """
        Every name of the Java client's configuration is understood (clients 2.1).
        """
        listener, logger = object(), object()
        directory = self.mktemp()
        made = ClientSettings.from_mapping(
            {
                "allotServer": "http://alloc/",
                "serverHost": "h",
                "serverPort": 3000,
                "publicKey": PUBLIC_KEY_TEXT,
                "deviceId": "d",
                "osName": "android",
                "osVersion": "6.0",
                "clientVersion": "2.0",
                "userId": "u",
                "tags": "t",
                "maxHeartbeat": 10_000,
                "minHeartbeat": 9_000,
                "aesKeyLength": 16,
                "compressLimit": 10,
                "sessionStorageDir": directory,
                "logger": logger,
                "logEnabled": True,
                "enableHttpProxy": False,
                "clientListener": listener,
                "handshakeTimeoutMills": 1500,
                "handshakeRetryCount": 2,
                "bindUserTimeoutMills": "2s",
                "bindUserRetryCount": 3,
            }
        )
        storage = made.session_storage
        assert isinstance(storage, FileSessionStorage)
        Path(directory).mkdir()
        storage.save("x")
        self.assertEqual([p.name for p in Path(directory).iterdir()], ["token.dat"])
        self.assertEqual(
            (made.alloc_server, made.addresses, made.device_id, made.os_name),
            (("http://alloc/",), (("h", 3000),), "d", "android"),
        )
        self.assertEqual((made.max_heartbeat, made.min_heartbeat), (10_000, 9_000))
        self.assertEqual((made.handshake_timeout, made.handshake_retries), (1.5, 2))
        self.assertEqual((made.bind_timeout, made.bind_retries), (2.0, 3))
        self.assertIs(made.listener, listener)
        self.assertIs(made.logger, logger)
        self.assertEqual((made.log_enabled, made.enable_http_proxy), (True, False))

    def test_our_names(self) -> None:
        """
        Ours are understood in both spellings.
        """
        snake = ClientSettings.from_mapping({"device_id": "d", "max_pending": 5})
        camel = ClientSettings.from_mapping({"deviceId": "d", "maxPending": 5})
        self.assertEqual(snake, camel)

    def test_name_of_the_manual(self) -> None:
        """
        C{setEnabledHttpProxy} of the manual is C{enable_http_proxy}.
        """
        made = ClientSettings.from_mapping(
            {"deviceId": "d", "setEnabledHttpProxy": "off"}
        )
        self.assertFalse(made.enable_http_proxy)

    def test_unknown_name(self) -> None:
        """
        A mistyped name is refused, and the right one suggested.
        """
        error = self.assertRaises(
            ConfigError,
            ClientSettings.from_mapping,
            {"deviceId": "d", "sreverHost": "h"},
        )
        self.assertEqual(error.key, "sreverHost")
        self.assertIn("server_host", str(error))

    def test_given_twice(self) -> None:
        """
        A setting under two names is ambiguous.
        """
        error = self.assertRaises(
            ConfigError,
            ClientSettings.from_mapping,
            {"deviceId": "d", "allotServer": "http://a", "alloc_server": "http://b"},
        )
        self.assertIn("twice", str(error))

    def test_device_id_is_required(self) -> None:
        """
        Without a device id there is nothing to make.
        """
        error = self.assertRaises(ConfigError, ClientSettings.from_mapping, {})
        self.assertEqual(error.key, "device_id")

    def test_bad_java_value(self) -> None:
        """
        The error names the setting as it was given.
        """
        error = self.assertRaises(
            ConfigError,
            ClientSettings.from_mapping,
            {"deviceId": "d", "bindUserTimeoutMills": "later"},
        )
        self.assertEqual(error.key, "bindUserTimeoutMills")


class ClientSettingsUseTests(SynchronousTestCase):
    """
    What a client cannot do without.
    """

    def test_server_is_needed(self) -> None:
        """
        A client that would have nowhere to connect to is not made.
        """
        made = settings(public_key=PUBLIC_KEY_TEXT)
        error = self.assertRaises(ConfigError, Client, made, reactor=Clock())
        self.assertEqual(error.key, "server_host")

    def test_key_is_needed(self) -> None:
        """
        Nor is one that would have to shake hands in clear without being told to.
        """
        made = settings(servers="a:1")
        error = self.assertRaises(ConfigError, Client, made, reactor=Clock())
        self.assertEqual(error.key, "public_key")
        Client(settings(servers="a:1", encrypt_required=False), reactor=Clock())

    def test_listener_of_the_settings(self) -> None:
        """
        Something that cannot listen is refused, also when it comes by the settings.
        """
        made = settings(servers="a:1", public_key=PUBLIC_KEY_TEXT, listener=object())
        self.assertRaises(TypeError, Client, made, reactor=Clock())
