"""
Tests for L{mpush_tw.config._notices}: what an operator is told at start.
"""

from __future__ import annotations

import re

from mpush_tw.config import load_settings
from tests.config.test_loader import ORIGINAL, LoaderTestCase

MANUAL = """
mp {
    log.level=warn
    log.dir=/opt/mp/logs
    zk { local-cache-path="/" }
    redis.write-to-zk=false
    thread.pool {
        boss { min:1, max:1, queue-size:0 }
        work { min:0, max:0, queue-size:0 }
        http-proxy { min:0, max:0, queue-size:0 }
        biz { min:1, max:4, queue-size:16 }
        push-callback { min:2, max:2, queue-size:0 }
        push-center { min:4, max:4, queue-size:0 }
        event-bus { min:4, max:4, queue-size:10000 }
        mq { min:2, max:4, queue-size:10000 }
    }
}
"""
"""
The keys that the manual lists and that later releases dropped (operations 2.13).
"""


class NoticeTests(LoaderTestCase):
    """
    One line each, and no more lines than needed.
    """

    def keys(self, *overrides: str) -> list[str]:
        return [notice.key for notice in self.load(*overrides).notices]

    def test_defaults(self) -> None:
        """There is nothing to say about the defaults."""
        self.assertEqual(self.keys(), [])

    def test_original_reference(self) -> None:
        """The original's reference file loads with a word about its stray text only."""
        loaded = load_settings(
            ORIGINAL,
            ['mp.redis.nodes=["h:1"]', "mp.security.allow-sample-key=true"],
            {},
        )
        self.assertEqual(len(loaded.notices), 1)
        self.assertIn(f"{ORIGINAL}:101", loaded.notices[0].text)

    def test_manual(self) -> None:
        """The manual's keys load; only those with a new name are mentioned."""
        loaded = self.load_file(MANUAL)
        self.assertEqual(
            [notice.key for notice in loaded.notices],
            ["mp.log.level", "mp.log.dir", "mp.zk.local-cache-path"],
        )
        self.assertEqual(loaded.settings.log_dir, "/opt/mp/logs")
        self.assertEqual(loaded.settings.thread.pool.event_bus.min, 4)
        self.assertEqual(loaded.settings.thread.pool.push_task, 4)

    def test_retired_with_another_value(self) -> None:
        """A retired key is mentioned when it is not at its old default."""
        for override in (
            "mp.redis.write-to-zk=true",
            "mp.thread.pool.boss.max=2",
            "mp.thread.pool.work.max=8",
            "mp.thread.pool.push-center.max=8",
            "mp.thread.pool.biz.queue-size=17",
        ):
            self.assertEqual(self.keys(override), [override.partition("=")[0]])

    def test_without_effect(self) -> None:
        """A key of the JVM is mentioned when it is not at its default."""
        for override in (
            "mp.core.epoll-provider=nio",
            "mp.log-conf-path=/x.xml",
            "mp.redis.config.maxIdle=5",
            "mp.redis.config.jmxEnabled=true",
            "mp.redis.config.testOnBorrow=true",
            "mp.redis.config.timeBetweenEvictionRunsMillis=1000",
            "mp.thread.pool.conn-work=4",
            "mp.thread.pool.push-client=3",
        ):
            self.assertEqual(self.keys(override), [override.partition("=")[0]])

    def test_default_in_other_words(self) -> None:
        """A default is a default however it is written."""
        self.assertEqual(
            self.keys(
                "mp.redis.config.maxIdle=4.0",
                "mp.redis.config.lifo=yes",
                "mp.home=/x",
                "mp.log-conf-path=/x/conf/logback.xml",
            ),
            [],
        )

    def test_unknown(self) -> None:
        """An unknown key is mentioned with the known key that is nearest."""
        (notice,) = self.load("mp.net.conect-server-port=1").notices
        self.assertEqual(
            notice.text,
            "mp.net.conect-server-port is not known and has no effect; "
            "did you mean mp.net.connect-server-port?",
        )

    def test_unknown_without_likeness(self) -> None:
        """For a key that resembles none, none is suggested."""
        (notice,) = self.load("mp.xyzzy=1").notices
        self.assertNotIn("did you mean", notice.text)

    def test_unknown_value_is_not_shown(self) -> None:
        """The value of a misspelt key is not shown; it may be a password."""
        (notice,) = self.load("mp.redis.pasword=hunter2").notices
        self.assertNotIn("hunter2", notice.text)

    def test_open_objects(self) -> None:
        """Keys that are the operator's own are not unknown."""
        self.assertEqual(
            self.keys(
                "mp.net.connect-server-register-attr.zone=a",
                'mp.net.public-host-mapping={"10.0.0.1": "1.2.3.4"}',
                "mp.http.dns-mapping={a: [b]}",
                "mp.spi.bind-validator=mine",
                "mp.http.allowed-hosts.0=a",
            ),
            [],
        )

    def test_outside_of_mp(self) -> None:
        """A section without mp around it is mentioned."""
        (notice,) = self.load_file("net.connect-server-port=1").notices
        self.assertTrue(re.search("did you mean mp.net?", notice.text))

    def test_dropped_text(self) -> None:
        """Text behind a list is mentioned with its line."""
        loaded = self.load_file("\nmp.http.allowed-hosts=[a] b")
        (notice,) = loaded.notices
        self.assertTrue(notice.text.endswith(f"(in {loaded.source}:2)"))

    def test_log_level(self) -> None:
        """An unknown level is taken as debug, as in the original, and mentioned."""
        loaded = self.load("mp.log-level=verbose")
        self.assertEqual(loaded.settings.log_level, "debug")
        self.assertEqual([notice.key for notice in loaded.notices], ["mp.log-level"])

    def test_level_in_any_case(self) -> None:
        """A level may be written in capitals."""
        loaded = self.load("mp.log-level=INFO")
        self.assertEqual((loaded.settings.log_level, loaded.notices), ("info", []))

    def test_java_providers(self) -> None:
        """Java class names choose nothing; the original's own two go unmentioned."""
        loaded = self.load(
            "mp.spi.thread-pool-factory="
            "com.mpush.tools.thread.pool.DefaultThreadPoolFactory",
            "mp.spi.dns-mapping-manager=com.mpush.mine.Mapping",
            "mp.spi.bind-validator=mine",
        )
        self.assertEqual(loaded.settings.spi, {"bind-validator": "mine"})
        self.assertEqual(
            [notice.key for notice in loaded.notices], ["mp.spi.dns-mapping-manager"]
        )


class AliasTests(LoaderTestCase):
    """
    Keys with two names.
    """

    def test_old_name(self) -> None:
        """An old name works, also for others that refer to the new one."""
        loaded = self.load_file("mp.log.dir=/l\nmp.monitor.dump-dir=${mp.log-dir}/d")
        self.assertEqual(loaded.settings.log_dir, "/l")
        self.assertEqual(loaded.settings.monitor.dump_dir, "/l/d")

    def test_new_name_wins(self) -> None:
        """In the same file the new name wins, and the old one is mentioned."""
        loaded = self.load_file("mp.log.level=debug\nmp.log-level=error")
        self.assertEqual(loaded.settings.log_level, "error")
        self.assertIn("is not used", loaded.notices[0].text)

    def test_stronger_layer_wins(self) -> None:
        """An old name on the command line wins over the new one in the file."""
        loaded = self.load_file("mp.log-level=error", "mp.log.level=info")
        self.assertEqual(loaded.settings.log_level, "info")
        loaded = self.load_file("mp.log.level=error", "mp.log-level=info")
        self.assertEqual(loaded.settings.log_level, "info")

    def test_bad_value_under_the_old_name(self) -> None:
        """A bad value is reported under the name and place that it was given."""
        error = self.refuse("mp.monitor.metrics-port=x")
        self.assertEqual(error.key, "mp.monitor.metrics-port")
        self.assertEqual(error.source, "--set mp.monitor.metrics-port")

    def test_metrics(self) -> None:
        """The metrics keys have two good names, and the one in mp.net wins."""
        loaded = self.load(
            "mp.monitor.metrics-port=9000", "mp.monitor.metrics-bind-ip=0.0.0.0"
        )
        net = loaded.settings.net
        self.assertEqual(
            (net.metrics_server_port, net.metrics_server_bind_ip), (9000, "0.0.0.0")
        )
        self.assertEqual(loaded.notices, [])
        loaded = self.load_file(
            "mp.monitor.metrics-port=9000\nmp.net.metrics-server-port=9001"
        )
        self.assertEqual(loaded.settings.net.metrics_server_port, 9001)

    def test_pool_keys_with_hyphens(self) -> None:
        """The pool's keys may be written with hyphens; camelCase wins."""
        loaded = self.load_file(
            "mp.redis.config { max-total=9, min-idle=2, minIdle=3, max-wait-millis=-1 }"
        )
        config = loaded.settings.redis.config
        self.assertEqual((config.max_total, config.min_idle), (9, 3))
        self.assertEqual(config.max_wait_millis, -1)
        self.assertEqual(loaded.notices, [])
