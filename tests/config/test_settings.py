"""
Tests for L{mpush_tw.config.settings}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import attrs

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import Settings, _fields, load_settings
from mpush_tw.config.settings import (
    CoreSettings,
    LimitsSettings,
    RedisSettings,
    ZkRetrySettings,
    ZkSettings,
)
from mpush_tw.errors import ConfigError


def sections(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for attribute in attrs.fields(cls):
        if _fields.key_of(attribute) is None:
            yield from sections(_fields.subsection(attribute))


class DeclarationTests(SynchronousTestCase):
    """
    What holds for every key.
    """

    def test_defaults_are_those_of_an_empty_configuration(self) -> None:
        """Settings made without a loader equal those of an empty configuration."""
        self.assertEqual(Settings(), load_settings(environ={}).settings)

    def test_attributes_are_named_after_keys(self) -> None:
        """An attribute is its key with underscores; zk's Ms suffix is left out."""
        for cls in sections(Settings):
            for attribute in attrs.fields(cls):
                key = _fields.name_of(attribute)
                if cls in (ZkSettings, ZkRetrySettings):
                    key = key.removesuffix("Ms")
                expected = re.sub("([A-Z])", r"_\1", key).lower().replace("-", "_")
                self.assertEqual(attribute.name.rstrip("_"), expected)

    def test_every_key_is_documented(self) -> None:
        """Each attribute has a line in its class or the class it extends."""
        for cls in sections(Settings):
            documented = "".join(base.__doc__ or "" for base in cls.__mro__)
            for attribute in attrs.fields(cls):
                name = _fields.name_of(attribute)
                self.assertIn(f"@ivar {attribute.name}: C{{{name}}}", documented)

    def test_settings_are_frozen(self) -> None:
        """Nobody changes settings behind another's back."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            Settings().core.max_packet_size = 1  # type: ignore[misc]

    def test_repr_has_no_secrets(self) -> None:
        """Settings in a log line or a traceback show no secret."""
        loaded = load_settings(
            None,
            [
                'mp.redis.nodes=["h:1:hunter2"]',
                "mp.redis.password=hunter2",
                "mp.zk.server-address=h",
                "mp.zk.digest=hunter2",
                "mp.net.admin-server-password=hunter2",
                "mp.security.allow-sample-key=true",
            ],
            {},
        )
        self.assertNotIn("hunter2", repr(loaded) + repr(loaded.settings))
        self.assertNotIn("hunter2", repr(loaded.settings.redis.endpoints()))


class DefaultTests(SynchronousTestCase):
    """
    Defaults that depend on something.
    """

    def test_paths_follow_home(self) -> None:
        """Logs and dumps are below the home directory."""
        settings = Settings(home="/opt/mp")
        self.assertEqual(settings.log_dir, "/opt/mp/logs")
        self.assertEqual(settings.monitor.dump_dir, "/opt/mp/tmp")

    def test_home_is_the_working_directory(self) -> None:
        """Without a home the working directory is it."""
        self.assertEqual(Settings().home, os.getcwd())

    def test_inflated_size_follows_packet_size(self) -> None:
        """The inflate bound is 1 MiB, or 16 times the packet size if that is more."""
        self.assertEqual(Settings().limits.max_inflated_size, 1 << 20)
        large = Settings(core=CoreSettings(max_packet_size=1 << 20))
        self.assertEqual(large.limits.max_inflated_size, 16 << 20)

    def test_inflated_size_may_be_set(self) -> None:
        """A bound that is set stays."""
        limits = LimitsSettings(max_inflated_size=5)
        self.assertEqual(Settings(limits=limits).limits.max_inflated_size, 5)

    def test_register_addresses_follow_own(self) -> None:
        """The published addresses are the own ones unless they are set."""
        loaded = load_settings(None, ["mp.net.public-ip=1.2.3.4"], {})
        self.assertEqual(loaded.settings.net.connect_server_register_ip, "1.2.3.4")


class ModeTests(SynchronousTestCase):
    """
    Standalone or cluster.
    """

    CONSENT = "mp.security.allow-sample-key=true"

    def cluster(self, *overrides: str) -> bool:
        return load_settings(None, [self.CONSENT, *overrides], {}).settings.cluster

    def test_standalone_is_the_default(self) -> None:
        """A node without any configuration is standalone."""
        self.assertFalse(Settings().cluster)

    def test_redis_and_zookeeper_make_a_cluster(self) -> None:
        """With both addresses a node is in a cluster."""
        self.assertTrue(
            self.cluster('mp.redis.nodes=["h:1"]', "mp.zk.server-address=h:2")
        )

    def test_provider_for_zookeeper(self) -> None:
        """A plug-in may take ZooKeeper's place."""
        self.assertTrue(self.cluster('mp.redis.nodes=["h:1"]', "mp.spi.registry=x"))

    def test_provider_for_redis(self) -> None:
        """A plug-in may take Redis's place."""
        self.assertTrue(
            self.cluster(
                "mp.zk.server-address=h:2", "mp.spi.cache=x", "mp.spi.mq-client=x"
            )
        )

    def test_providers_alone_are_standalone(self) -> None:
        """Plug-ins without any address do not make a cluster."""
        self.assertFalse(self.cluster("mp.spi.registry=x", "mp.spi.cache=x"))


class PlugInTests(SynchronousTestCase):
    """
    What C{mp.spi} may say.
    """

    def problem(self, *overrides: str) -> ConfigError:
        overrides = ("mp.security.allow-sample-key=true", *overrides)
        error = self.assertRaises(ConfigError, load_settings, None, overrides, {})
        assert isinstance(error, ConfigError)
        return error

    def test_misspelt(self) -> None:
        """A misspelt extension point stops the start: a validator would be missing."""
        error = self.problem("mp.spi.bind-validater=mine")
        self.assertEqual(error.key, "mp.spi.bind-validater")
        self.assertIn("did you mean bind-validator?", error.problem)

    def test_unknown(self) -> None:
        """One that is like none is answered with all that there are."""
        error = self.problem("mp.spi.zzz=mine")
        self.assertIn("server-event-listener, bind-validator", error.problem)

    def test_twice(self) -> None:
        """A point may be named by one of its names, not by two."""
        error = self.problem("mp.spi.cache=a", "mp.spi.cache-manager=b")
        self.assertIn("mp.spi.cache means the same", error.problem)

    def test_queue(self) -> None:
        """A cluster whose store is a plug-in needs a queue that is one."""
        error = self.problem("mp.zk.server-address=h:2", "mp.spi.cache=x")
        self.assertEqual(error.key, "mp.spi.mq-client")

    def test_key(self) -> None:
        """A cluster whose handshakes a plug-in opens needs no key of its own."""
        cluster = ('mp.redis.nodes=["h:1"]', "mp.zk.server-address=h:2")
        load_settings(None, [*cluster, "mp.spi.rsa-cipher=hsm"], {})
        for overrides in (cluster, (*cluster, "mp.spi.rsa-cipher=rsa")):
            self.assertRaises(ConfigError, load_settings, None, overrides, {})

    def test_settings_of_plug_ins(self) -> None:
        """What plug-ins need to know is kept as written, and nobody wonders at it."""
        loaded = load_settings(None, ["mp.spi-settings.jwt.url=http"], {})
        self.assertEqual(loaded.settings.spi_settings, {"jwt": {"url": "http"}})
        self.assertEqual(loaded.notices, [])

    def test_settings_are_secret(self) -> None:
        """They are not shown where the settings are."""
        loaded = load_settings(None, ["mp.spi-settings.jwt.key=hunter2"], {})
        self.assertNotIn("hunter2", repr(loaded))


class EndpointTests(SynchronousTestCase):
    """
    Redis nodes in parts.
    """

    def endpoints(self, *overrides: str) -> list[tuple[str, int, str]]:
        overrides = (
            "mp.zk.server-address=h",
            "mp.security.allow-sample-key=true",
            *overrides,
        )
        redis = load_settings(None, overrides, {}).settings.redis
        return [(node.host, node.port, node.password) for node in redis.endpoints()]

    def test_parts(self) -> None:
        """A node is a host and a port, and may have a password with colons."""
        self.assertEqual(
            self.endpoints('mp.redis.nodes=["10.0.0.1:6379", "[::1]:1:a:b"]'),
            [("10.0.0.1", 6379, ""), ("::1", 1, "a:b")],
        )

    def test_password_for_all(self) -> None:
        """The password key wins over those behind the ports."""
        self.assertEqual(
            self.endpoints('mp.redis.nodes=["h:1:own"]', "mp.redis.password=all"),
            [("h", 1, "all")],
        )

    def test_password_for_the_master(self) -> None:
        """The password key is not for sentinels, which have their own or none."""
        settings = RedisSettings(nodes=("h:1:own", "h:2"), password="master")
        self.assertEqual([node.password for node in settings.sentinels()], ["own", ""])

    def test_numbered_nodes(self) -> None:
        """Nodes may be given by number, in any order."""
        self.assertEqual(
            self.endpoints("mp.redis.nodes.10=b:1", "mp.redis.nodes.9=a:1"),
            [("a", 1, ""), ("b", 1, "")],
        )
