"""
Encrypted connections to Redis.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mpush_tw.config.settings import RedisSettings, RedisTlsSettings
from mpush_tw.errors import ConfigError
from mpush_tw.integrations.redis import RedisCache, RedisQueue
from tests.integrations.contracts import steps
from tests.integrations.redis.support import (
    failing,
    single,
    started_cache,
    started_queue,
    until,
)
from tests.servers.redis import RedisServer, TlsFiles


class Authority:
    """
    Signs certificates, and keeps them in a directory.

    @ivar path: Its own certificate.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._name = name
        self.path = directory / "authority.pem"
        certificate = self._sign(name, self._key, [], authority=True)
        self.path.write_bytes(certificate)

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """
        Make a certificate for addresses.

        @return: The files of the certificate and its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        paths = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        paths[0].write_bytes(self._sign(subject, key, addresses))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        addresses: Any,
        authority: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


class TlsTests(TestCase):
    """
    A server that speaks TLS only.
    """

    timeout = 30

    def setUp(self) -> None:
        self.authority = Authority(Path(self.mktemp()))

    def serve(
        self, *addresses: str, clients: bool = False, password: str | None = None
    ) -> RedisServer:
        """
        Start a server whose certificate is for these addresses.
        """
        certificate, key = self.authority.issue("server", *addresses)
        files = (self.authority.path, certificate, key)
        authority, certificate, key = (path.resolve() for path in files)
        tls = TlsFiles(authority, certificate, key, clients)
        server = RedisServer(tls=tls, password=password)
        server.start()
        self.addCleanup(server.stop)
        return server

    def settings(self, server: RedisServer, **tls: Any) -> RedisSettings:
        """
        Make the settings for it.
        """
        tls.setdefault("ca_file", str(self.authority.path))
        return single(
            server,
            tls=RedisTlsSettings(enabled=True, **tls),
            password=server.password or "",
        )

    async def refused(self, settings: RedisSettings) -> str:
        """
        Start a store, which must fail.
        """
        return str(await failing(RedisCache(settings, reactor).start()))

    @steps
    async def test_works(self) -> None:
        """
        Store and queue work as without, and come back after a restart.
        """
        server = self.serve("127.0.0.1", password="secret")
        cache = await started_cache(self, self.settings(server))
        queue = await started_queue(self, self.settings(server))
        received: list[str] = []
        await queue.subscribe("/a", lambda topic, text: received.append(text))
        await gatherResults([cache.set(f"k{n}", "推" * 10_000) for n in range(50)])
        self.assertEqual(await cache.get("k1"), "推" * 10_000)
        await queue.publish("/a", "1")
        await until(lambda: received)
        restored: list[str] = []
        cache.on_restored(lambda: restored.append("cache"))
        queue.on_restored(lambda: restored.append("queue"))
        server.restart()
        await until(lambda: len(restored) == 2)
        self.assertEqual(await cache.get("k49"), "推" * 10_000)

    @steps
    async def test_own_certificate(self) -> None:
        """
        A server that asks for a certificate gets the configured one.
        """
        server = self.serve("127.0.0.1", clients=True)
        certificate, key = self.authority.issue("node")
        cache = await started_cache(
            self, self.settings(server, cert_file=str(certificate), key_file=str(key))
        )
        self.assertIsNone(await cache.get("k"))

    @steps
    async def test_no_certificate(self) -> None:
        """
        Without one the start fails, and says why.
        """
        server = self.serve("127.0.0.1", clients=True)
        self.assertIn(
            f"Redis at {server.address} was lost: ",
            await self.refused(self.settings(server)),
        )

    @steps
    async def test_unknown_authority(self) -> None:
        """
        A certificate that nobody known has signed is refused.
        """
        server = self.serve("127.0.0.1")
        other = Authority(Path(self.mktemp()))
        for ca_file in (str(other.path), ""):
            self.assertEqual(
                await self.refused(self.settings(server, ca_file=ca_file)),
                f"Redis at {server.address} was lost: certificate verify failed",
            )

    @steps
    async def test_other_address(self) -> None:
        """
        A certificate for another address is refused, unless that is switched off; who
        signed it is checked all the same.
        """
        server = self.serve("127.0.0.2")
        self.assertEqual(
            f"Redis at {server.address} was lost: its certificate is for another "
            "address",
            await self.refused(self.settings(server)),
        )
        cache = await started_cache(self, self.settings(server, verify_hostname=False))
        self.assertIsNone(await cache.get("k"))
        other = Authority(Path(self.mktemp()))
        self.assertIn(
            "certificate verify failed",
            await self.refused(
                self.settings(server, verify_hostname=False, ca_file=str(other.path))
            ),
        )

    @steps
    async def test_without_tls(self) -> None:
        """
        A server that speaks TLS is not spoken to without, nor the reverse.
        """
        server = self.serve("127.0.0.1")
        await self.refused(attrs.evolve(self.settings(server), tls=RedisTlsSettings()))
        plain = RedisServer()
        plain.start()
        self.addCleanup(plain.stop)
        self.assertIn(
            f"Redis at {plain.address} ", await self.refused(self.settings(plain))
        )


class FileTests(SynchronousTestCase):
    """
    Files that cannot be used: the node is not even composed.
    """

    def setUp(self) -> None:
        self.authority = Authority(Path(self.mktemp()))
        self.certificate, self.key = map(str, self.authority.issue("node"))
        self.rubbish = self.mktemp()
        Path(self.rubbish).write_bytes(b"\xff\xfe")

    def refused(self, **tls: Any) -> ConfigError:
        """
        Make store and queue, which must fail alike.
        """
        settings = RedisSettings(
            nodes=("h:1",), tls=RedisTlsSettings(enabled=True, **tls)
        )
        self.assertRaises(ConfigError, RedisQueue, settings, reactor)
        error: ConfigError = self.assertRaises(
            ConfigError, RedisCache, settings, reactor
        )
        return error

    def test_missing(self) -> None:
        """
        A file that is not there is named with its key.
        """
        for key in ("ca_file", "cert_file"):
            error = self.refused(**{key: "/nowhere.pem"})
            self.assertEqual(error.key, "mp.redis.tls." + key.replace("_", "-"))
            self.assertIn("/nowhere.pem cannot be read: No such file", error.problem)
        error = self.refused(cert_file=self.certificate, key_file="/nowhere.key")
        self.assertEqual(error.key, "mp.redis.tls.key-file")

    def test_rubbish(self) -> None:
        """
        A file that is no PEM file is told so.
        """
        self.refused(ca_file=self.rubbish)
        self.refused(ca_file=self.key)
        self.refused(cert_file=self.rubbish, key_file=self.key)
        error = self.refused(cert_file=self.certificate, key_file=self.rubbish)
        self.assertEqual(error.key, "mp.redis.tls.key-file")
        error = self.refused(cert_file=self.certificate, key_file=self.certificate)
        self.assertIn("holds no private key", error.problem)

    def test_broken_certificate(self) -> None:
        """
        So is one whose certificate is broken.
        """
        text = Path(self.certificate).read_text().replace("M", "A")
        Path(self.rubbish).write_text(text)
        error = self.refused(ca_file=self.rubbish)
        self.assertIn("holds no certificate", error.problem)

    def test_other_key(self) -> None:
        """
        A key must be that of the certificate.
        """
        _, other = self.authority.issue("other")
        error = self.refused(cert_file=self.certificate, key_file=str(other))
        self.assertIn("is not the key of mp.redis.tls.cert-file", error.problem)

    def test_switched_off(self) -> None:
        """
        Files of TLS that is not enabled are not read.
        """
        RedisCache(
            RedisSettings(nodes=("h:1",), tls=RedisTlsSettings(ca_file="/nowhere")),
            reactor,
        )
