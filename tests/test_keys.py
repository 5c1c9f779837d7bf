"""
Tests for L{mpush_tw.keys} (DESIGN 5.4).
"""

from __future__ import annotations

import stat
from pathlib import Path

import attrs

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import Settings, load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.keys import (
    SAMPLE_PUBLIC_KEY,
    node_key,
    private_key_path,
    public_key_path,
)
from mpush_tw.protocol.crypto import RsaPrivateKey, RsaPublicKey
from tests.support import SAMPLE

_CLUSTER = (
    'mp.redis.nodes=["127.0.0.1:6379"]',
    'mp.zk.server-address="127.0.0.1:2181"',
)
_OWN = RsaPrivateKey.generate(1024)
_OTHER = RsaPrivateKey.generate(1024)


class KeysTestCase(SynchronousTestCase):
    """
    A home of its own for each test.
    """

    def setUp(self) -> None:
        self.home = Path(self.mktemp())

    def settings(
        self,
        private_key: str = "",
        public_key: str = "",
        consent: bool = False,
        cluster: bool = False,
    ) -> Settings:
        """
        Settings with this home, as an embedding program may put them together: the
        loader has its own checks.
        """
        overrides = [f'mp.home="{self.home.absolute()}"']
        if cluster:
            overrides += [*_CLUSTER, f'mp.security.private-key="{_OWN.text()}"']
        settings = load_settings(None, overrides, {}).settings
        security = attrs.evolve(
            settings.security,
            private_key=private_key,
            public_key=public_key,
            allow_sample_key=consent,
        )
        return attrs.evolve(settings, security=security)

    def refusal(
        self, private_key: str = "", public_key: str = "", cluster: bool = False
    ) -> ConfigError:
        """
        Why the node will not start.
        """
        settings = self.settings(private_key, public_key, cluster=cluster)
        error = self.assertRaises(ConfigError, node_key, settings)
        assert isinstance(error, ConfigError)
        return error


class ConfiguredKeyTests(KeysTestCase):
    """
    A key in the configuration.
    """

    def test_used(self) -> None:
        """
        The key that is configured is used, and none is made.
        """
        key, made = node_key(self.settings(_OWN.text(), _OWN.public.text()))
        self.assertEqual(key.public.modulus, _OWN.public.modulus)
        self.assertFalse(made)
        self.assertFalse(self.home.exists())

    def test_without_its_public_half(self) -> None:
        """
        The private half suffices.
        """
        key, _ = node_key(self.settings(_OWN.text()))
        self.assertEqual(key.public.modulus, _OWN.public.modulus)

    def test_unreadable(self) -> None:
        """
        A text that is no key is refused by its name, and not shown.
        """
        error = self.refusal("c2VjcmV0LXRleHQ=")
        self.assertEqual(error.key, "mp.security.private-key")
        self.assertNotIn("c2VjcmV0LXRleHQ", str(error))

    def test_unreadable_public_half(self) -> None:
        """
        So is a public key that is none.
        """
        error = self.refusal(_OWN.text(), "AAAA")
        self.assertEqual(error.key, "mp.security.public-key")

    def test_not_a_pair(self) -> None:
        """
        Two halves that do not belong together are refused.
        """
        error = self.refusal(_OWN.text(), _OTHER.public.text())
        self.assertIn("does not belong to the public key", str(error))

    def test_sample(self) -> None:
        """
        The published sample key is refused with the words that would allow it.
        """
        error = self.refusal(SAMPLE["rsaPrivateKeyBase64"])
        self.assertIn("mp.security.allow-sample-key=true", str(error))

    def test_sample_by_consent(self) -> None:
        """
        With the operator's consent it is used.
        """
        key, made = node_key(
            self.settings(
                SAMPLE["rsaPrivateKeyBase64"],
                SAMPLE["rsaPublicKeyBase64"],
                consent=True,
            )
        )
        self.assertTrue(key.is_sample)
        self.assertFalse(made)

    def test_sample_is_known(self) -> None:
        """
        With consent and no key at all the published pair is used, as a configuration of
        the original that names no key means it: on a node of its own and in a cluster.
        """
        for cluster in (False, True):
            key, made = node_key(self.settings(consent=True, cluster=cluster))
            self.assertTrue(key.is_sample)
            self.assertEqual(key.public.text(), SAMPLE["rsaPublicKeyBase64"])
            self.assertEqual(SAMPLE_PUBLIC_KEY, SAMPLE["rsaPublicKeyBase64"])
            self.assertFalse(made)
        self.assertFalse(self.home.exists())

    def test_cluster_without_a_key(self) -> None:
        """
        A cluster without a key does not start, and is told both ways out.
        """
        error = self.refusal(cluster=True)
        self.assertEqual(error.key, "mp.security.private-key")
        self.assertIn("mpush keygen", str(error))
        self.assertIn("mp.security.allow-sample-key=true", str(error))
        self.assertFalse(self.home.exists())


class GeneratedKeyTests(KeysTestCase):
    """
    A standalone node without a key.
    """

    def test_made_once(self) -> None:
        """
        The first start makes a key of 2048 bits, later ones use it.
        """
        first, made = node_key(self.settings())
        self.assertTrue(made)
        self.assertEqual(first.bits, 2048)
        second, made = node_key(self.settings())
        self.assertFalse(made)
        self.assertEqual(second.public.modulus, first.public.modulus)

    def test_files(self) -> None:
        """
        Nobody but the owner can read the key; its public half lies beside it.
        """
        key, _ = node_key(self.settings())
        private = private_key_path(str(self.home))
        self.assertEqual(stat.S_IMODE(private.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(private.parent.stat().st_mode), 0o700)
        public = RsaPublicKey.load(public_key_path(str(self.home)).read_bytes())
        self.assertEqual(public.modulus, key.public.modulus)

    def test_damaged_file(self) -> None:
        """
        A key file that is damaged stops the start: a new key would lock all clients
        out.
        """
        path = private_key_path(str(self.home))
        path.parent.mkdir(parents=True)
        path.write_text("-----BEGIN PRIVATE KEY-----\nMIIC\n")
        error = self.refusal()
        self.assertEqual(error.key, "mp.security.private-key")
        self.assertIn(str(path), str(error))
        self.assertTrue(path.read_text().endswith("MIIC\n"))

    def test_unreadable_file(self) -> None:
        """
        So does one that cannot be read.
        """
        path = private_key_path(str(self.home))
        path.mkdir(parents=True)
        error = self.refusal()
        self.assertEqual(error.key, "mp.security.private-key")
        self.assertIn(str(path), str(error))

    def test_home_cannot_be_written(self) -> None:
        """
        A home that cannot be written to is an error that names the home.
        """
        self.home.write_text("a file")
        error = self.refusal()
        self.assertEqual(error.key, "mp.home")
        self.assertIn(str(self.home), str(error))
