"""
Tests for L{mpush_tw.config.loader} and for what is refused.
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import LoadedSettings, SettingsError, load_settings
from mpush_tw.errors import ConfigError
from mpush_tw.protocol.crypto import RsaPrivateKey

ORIGINAL = str(Path(__file__).parent.parent / "vectors" / "original-reference.conf")
CLUSTER = (
    'mp.redis.nodes=["10.0.0.1:6379"]',
    "mp.zk.server-address=10.0.0.2:2181",
    "mp.security.allow-sample-key=true",
)


class LoaderTestCase(SynchronousTestCase):
    """
    Configurations from texts, without the environment of whoever runs the tests.
    """

    def load(self, *overrides: str, **environ: str) -> LoadedSettings:
        return load_settings(None, overrides, environ)

    def load_file(self, text: str, *overrides: str, **environ: str) -> LoadedSettings:
        return load_settings(self.write(text), overrides, environ)

    def write(self, text: str) -> str:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def refuse(self, *overrides: str) -> ConfigError:
        return self.assertRaises(ConfigError, self.load, *overrides)

    def problems(self, *overrides: str) -> list[str]:
        error = self.assertRaises(SettingsError, self.load, *overrides)
        return [problem.key for problem in error.problems]


class LayerTests(LoaderTestCase):
    """
    Where values come from.
    """

    def test_file(self) -> None:
        """A file's values are laid over the defaults."""
        loaded = self.load_file("mp { core { max-packet-size=20k } }")
        self.assertEqual(loaded.settings.core.max_packet_size, 20480)
        self.assertEqual(loaded.settings.core.compress_threshold, 10240)

    def test_source(self) -> None:
        """The outcome names the file, or says that there was none."""
        path = self.write("")
        self.assertEqual(load_settings(path, (), {}).source, path)
        self.assertEqual(self.load().source, "defaults")

    def test_variable_names_the_file(self) -> None:
        """Without a file on the command line MP_CONF names it."""
        path = self.write("mp.net.connect-server-port=1")
        loaded = load_settings(None, (), {"MP_CONF": path})
        self.assertEqual(loaded.settings.net.connect_server_port, 1)
        self.assertEqual(loaded.source, path)

    def test_command_line_beats_variable(self) -> None:
        """A file on the command line wins over MP_CONF."""
        loaded = load_settings(self.write("mp.home=/a"), (), {"MP_CONF": "/nowhere"})
        self.assertEqual(loaded.settings.home, "/a")

    def test_empty_variable(self) -> None:
        """An empty MP_CONF is none."""
        self.assertEqual(self.load(MP_CONF="").source, "defaults")

    def test_options_beat_the_file(self) -> None:
        """Options are laid over the file, the last one on top."""
        loaded = self.load_file("mp.home=/a", "mp.home=/b", "mp.home=/c")
        self.assertEqual(loaded.settings.home, "/c")

    def test_option_without_quotes(self) -> None:
        """An option's value needs no quotes, whatever it holds."""
        for value in ("a:b=c d@e//f#g", "10.0.0.1", "true", "007", "", "1.50"):
            loaded = self.load(f"mp.net.admin-server-password={value}")
            self.assertEqual(loaded.settings.net.admin_server_password, value)

    def test_option_in_hocon(self) -> None:
        """An option's value may be a list, an object, a quoted text or a reference."""
        loaded = self.load(
            'mp.http.allowed-hosts=["a", b]',
            'mp.net.public-host-mapping={"10.0.0.1": "1.2.3.4"}',
            "mp.zk.namespace=${mp.redis.sentinel-master}/x",
            'mp.redis.sentinel-master="m m"',
        )
        self.assertEqual(loaded.settings.http.allowed_hosts, ("a", "b"))
        self.assertEqual(
            loaded.settings.net.public_host_mapping, {"10.0.0.1": "1.2.3.4"}
        )
        self.assertEqual(loaded.settings.zk.namespace, "m m/x")

    def test_option_without_value(self) -> None:
        """An option that is no key=value is refused."""
        self.assertIn("key=value", str(self.refuse("mp.home")))

    def test_option_for_another_tree(self) -> None:
        """An option for a key outside of mp is refused."""
        self.assertIn("starts with mp.", str(self.refuse("home=/x")))

    def test_option_is_named(self) -> None:
        """A bad option is named without its value."""
        error = self.refuse("mp.redis.password=[hunter2")
        self.assertEqual(error.source, "--set mp.redis.password")
        self.assertNotIn("hunter2", str(error))

    def test_environment(self) -> None:
        """A variable enters where the file asks for it, and only from what is given."""
        text = "mp.net.admin-server-password=${?MP_TEST_PASSWORD}"
        loaded = self.load_file(text, MP_TEST_PASSWORD="x:y")
        self.assertEqual(loaded.settings.net.admin_server_password, "x:y")
        os.environ["MP_TEST_PASSWORD"] = "other"
        self.addCleanup(os.environ.pop, "MP_TEST_PASSWORD")
        self.assertEqual(self.load_file(text).settings.net.admin_server_password, "")

    def test_pseudo_properties(self) -> None:
        """References may name the Java properties that describe the system."""
        loaded = self.load_file(
            'mp.home=${user.dir}"|"${user.home}"|"${user.name}"|"'
            '${os.name}"|"${java.io.tmpdir}'
        )
        self.assertEqual(
            loaded.settings.home.split("|"),
            [
                os.getcwd(),
                os.path.expanduser("~"),
                getpass.getuser(),
                "Linux",
                tempfile.gettempdir(),
            ],
        )

    def test_home_in_a_file_moves_the_paths(self) -> None:
        """Paths below the home directory follow it."""
        settings = self.load_file("mp.home=/opt/mp").settings
        self.assertEqual(settings.log_dir, "/opt/mp/logs")
        self.assertEqual(settings.monitor.dump_dir, "/opt/mp/tmp")

    def test_keys_beside_mp(self) -> None:
        """A file may hold keys of its own for references."""
        loaded = self.load_file("base=/srv\nmp.home=${base}/mp")
        self.assertEqual(loaded.settings.home, "/srv/mp")
        self.assertEqual(loaded.notices, [])

    def test_whole(self) -> None:
        """What stands beside mp is kept too: it may be a plug-in's."""
        whole = self.load_file("mp.core.min-heartbeat=4m\nshop.url=u").whole
        self.assertEqual(whole["shop"], {"url": "u"})
        self.assertEqual(whole["mp"]["core"]["min-heartbeat"], "4m")

    def test_tree(self) -> None:
        """The tree holds every key, as written."""
        tree = self.load_file("mp.core.min-heartbeat=4m").tree
        self.assertEqual(tree["core"]["min-heartbeat"], "4m")
        self.assertEqual(tree["core"]["max-packet-size"], "10k")
        self.assertEqual(tree["net"]["connect-server-port"], 3000)
        self.assertEqual(tree["log-dir"], f"{os.getcwd()}/logs")

    def test_changed(self) -> None:
        """What differs from the defaults is known, whatever its spelling."""
        loaded = self.load_file(
            "mp.home=/x\nmp.core.max-packet-size=10240\nmp.net.snd_buf.gateway-client=1"
        )
        self.assertEqual(
            loaded.changed, {"home": "/x", "net": {"snd_buf": {"gateway-client": 1}}}
        )


class FileTests(LoaderTestCase):
    """
    Files that cannot be used.
    """

    def test_missing(self) -> None:
        """A named file that does not exist is an error that names it."""
        for path, environ in (("/no/such", {}), (None, {"MP_CONF": "/no/such"})):
            error = self.assertRaises(ConfigError, load_settings, path, (), environ)
            self.assertEqual(str(error), "there is no such file (in /no/such)")

    def test_directory(self) -> None:
        """A directory is no configuration."""
        path = self.mktemp()
        os.mkdir(path)
        error = self.assertRaises(ConfigError, load_settings, path, (), {})
        self.assertEqual(error.source, path)

    def test_not_text(self) -> None:
        """A file that is not UTF-8 is refused."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"mp.home=\xff")
        error = self.assertRaises(ConfigError, load_settings, path, (), {})
        self.assertIn("UTF-8", str(error))

    def test_syntax(self) -> None:
        """A mistake in the text is reported with file and line."""
        path = self.write("mp {\n home=a:b\n}")
        error = self.assertRaises(ConfigError, load_settings, path, (), {})
        self.assertEqual(error.source, f"{path}:2")

    def test_mp_is_no_object(self) -> None:
        """A file whose mp is no object is refused."""
        self.assertRaises(ConfigError, self.load_file, "mp=1")


class RefusedTests(LoaderTestCase):
    """
    Values that a node does not start with.
    """

    def test_message(self) -> None:
        """A bad value is refused with key, value, expectation, file and line."""
        path = self.write("mp {\n  core {\n    min-heartbeat=3min\n  }\n}")
        error = self.assertRaises(SettingsError, load_settings, path, (), {})
        self.assertEqual(error.key, "mp.core.min-heartbeat")
        self.assertEqual(
            str(error),
            "mp.core.min-heartbeat: found 3min, expected a duration such as 500ms, "
            f"10s, 3m or 1d, from 0 to 2147483647 seconds (in {path}:3)",
        )

    def test_all_at_once(self) -> None:
        """All bad values are reported together, a line each."""
        overrides = ("mp.core.max-packet-size=x", "mp.home=[]", "mp.zk=1")
        error = self.assertRaises(SettingsError, self.load, *overrides)
        lines = str(error).split("\n")
        self.assertEqual(
            [line.partition(":")[0] for line in lines],
            ["mp.home", "mp.core.max-packet-size", "mp.zk"],
        )
        self.assertEqual((error.key, error.source), ("mp.home", "--set mp.home"))

    def test_secrets_are_not_shown(self) -> None:
        """A bad value of a secret key is not repeated."""
        for override in (
            "mp.redis.password=[hunter2]",
            "mp.security.private-key={a: hunter2}",
            'mp.security.private-key="hunter2"',
            'mp.redis.nodes=["host:99999:hunter2"]',
        ):
            self.assertNotIn("hunter2", str(self.refuse(override)), override)

    def test_null(self) -> None:
        """A null is no value for any key."""
        text = "mp.home=null\nmp.zk=null"
        error = self.assertRaises(ConfigError, self.load_file, text)
        self.assertIn("mp.home: found null, expected a text", str(error))
        self.assertIn("mp.zk: found null, expected an object", str(error))

    def test_wrong_kind(self) -> None:
        """Each kind of key refuses what is of another kind."""
        for override in (
            "mp.core.max-packet-size=10kb",
            "mp.core.max-packet-size=0",
            "mp.core.max-packet-size=2g",
            "mp.core.max-packet-size=-1",
            "mp.core.max-hb-timeout-times=2x",
            "mp.core.max-hb-timeout-times=-1",
            "mp.core.shutdown-grace=-1s",
            "mp.core.drain-rate=-1",
            "mp.core.session-expired-time=900ms",
            "mp.monitor.print-log=1",
            "mp.monitor.print-log=True",
            "mp.http.allowed-hosts=a",
            "mp.http.allowed-hosts={a: b}",
            "mp.http.allowed-hosts=[[a]]",
            "mp.net.public-host-mapping=x",
            'mp.net.public-host-mapping={"10.0.0.1": []}',
            "mp.net.snd_buf=5",
        ):
            self.refuse(override)

    def test_heartbeat(self) -> None:
        """An upper bound below a second is refused."""
        self.assertEqual(
            self.problems("mp.core.max-heartbeat=999ms"), ["mp.core.max-heartbeat"]
        )

    def test_dump_period(self) -> None:
        """A monitor period below a second is refused."""
        self.assertEqual(
            self.problems("mp.monitor.dump-period=999"), ["mp.monitor.dump-period"]
        )

    def test_aes_key_length(self) -> None:
        """Only 16 is a length of AES keys."""
        for length in (15, 24, 32):
            self.refuse(f"mp.security.aes-key-length={length}")

    def test_water_marks(self) -> None:
        """A low mark above the high one is refused, in both pairs."""
        for door in ("connect-server", "gateway-server"):
            section = f"mp.net.write-buffer-water-mark.{door}"
            error = self.refuse(f"{section}-low=2k", f"{section}-high=1k")
            self.assertEqual(error.key, f"{section}-low")
            self.assertIn(f"{section}-high", error.problem)

    def test_no_conflict_with_a_bad_value(self) -> None:
        """A value that cannot be read is not compared with others as well."""
        section = "mp.net.write-buffer-water-mark.connect-server"
        self.assertEqual(
            self.problems(f"{section}-low=100k", f"{section}-high=x"),
            [f"{section}-high"],
        )

    def test_gateway_net(self) -> None:
        """The nets that the original announces but does not have are refused."""
        for net in ("sctp", "udt"):
            error = self.refuse(f"mp.net.gateway-server-net={net}")
            self.assertIn("expected tcp or udp; the original", error.problem)
        self.refuse("mp.net.gateway-server-net=TCP")

    def test_groups(self) -> None:
        """Only multicast addresses are groups."""
        for side in ("server", "client"):
            for address in ("10.0.0.1", "240.0.0.0", "x", "ff02::1", ""):
                self.refuse(f"mp.net.gateway-{side}-multicast={address}")

    def test_ports(self) -> None:
        """Ports are 0 to 65535."""
        for name in (
            "connect-server",
            "gateway-server",
            "gateway-client",
            "admin-server",
            "metrics-server",
            "alloc-server",
        ):
            for port in ("-1", "65536", "x"):
                self.refuse(f"mp.net.{name}-port={port}")
        self.refuse("mp.net.ws-server-port=65536")

    def test_websocket_is_off_below_zero(self) -> None:
        """For the WebSocket port a negative number means off, as in the original."""
        loaded = self.load("mp.net.ws-server-port=-1")
        self.assertEqual(loaded.settings.net.ws_server_port, 0)

    def test_pages_that_may_connect(self) -> None:
        """Origins are a scheme, a host and perhaps a port, and nothing behind that."""
        key = "mp.net.ws-allowed-origins"
        for origin in (
            "example.com",
            "https://example.com/",
            "https://",
            "https://a b",
            "https://user@example.com",
            "",
        ):
            self.refuse(f'{key}=["{origin}"]')
        good = ("https://example.com", "http://*.example.com:8080", "*", "null")
        loaded = self.load(f"{key}={json.dumps(good)}")
        self.assertEqual(loaded.settings.net.ws_allowed_origins, good)

    def test_limits(self) -> None:
        """Limits that would stop every client are refused."""
        for name in (
            "max-unsecured",
            "max-per-address",
            "max-per-user",
            "accept-rate",
            "handshake-timeout",
        ):
            self.refuse(f"mp.limits.{name}=0")
        self.refuse("mp.limits.max-connections=-1")
        self.refuse("mp.limits.max-outbound=-1")

    def test_peers(self) -> None:
        """Peers are addresses or networks."""
        self.refuse('mp.net.gateway-allowed-peers=["10.0.0.1/8"]')
        self.refuse('mp.net.gateway-allowed-peers=["example.com"]')
        peers = self.load('mp.net.gateway-allowed-peers=["10.0.0.1", "::/0"]')
        self.assertEqual(peers.settings.net.gateway_allowed_peers, ("10.0.0.1", "::/0"))

    def test_choices(self) -> None:
        """Keys with a few words refuse all others."""
        self.refuse("mp.push.tags-match=prefix")
        self.refuse("mp.net.alloc-server-protocol=ftp")
        self.refuse("mp.alloc.strategy=least")
        error = self.refuse("mp.redis.cluster-model=sharded")
        self.assertIn("expected single, cluster or sentinel", error.problem)

    def test_origins(self) -> None:
        """What may stand in Access-Control-Allow-Origin: nothing, all, one origin."""
        for origin in ("", "*", "https://www.example.com", "http://[::1]:8080"):
            loaded = self.load(f"mp.alloc.allow-origin={origin}")
            self.assertEqual(loaded.settings.alloc.allow_origin, origin)
        for origin in ("example.com", "https://a, https://b", "https://a/x", "null"):
            self.refuse(f"mp.alloc.allow-origin={origin}")

    def test_sentinel(self) -> None:
        """Sentinels without the master's name are refused."""
        error = self.refuse(*CLUSTER, "mp.redis.cluster-model=sentinel")
        self.assertEqual(error.key, "mp.redis.sentinel-master")
        self.assertEqual(error.source, "--set mp.redis.cluster-model")
        loaded = self.load(
            *CLUSTER, "mp.redis.cluster-model=sentinel", "mp.redis.sentinel-master=m"
        )
        self.assertEqual(loaded.settings.redis.sentinel_master, "m")

    def test_tls_pair(self) -> None:
        """A certificate for Redis without its key is refused, and the reverse."""
        error = self.refuse(*CLUSTER, "mp.redis.tls.cert-file=/a.pem")
        self.assertEqual(error.key, "mp.redis.tls.key-file")
        error = self.refuse(*CLUSTER, "mp.redis.tls.key-file=/a.key")
        self.assertEqual(error.key, "mp.redis.tls.cert-file")
        loaded = self.load(
            *CLUSTER, "mp.redis.tls.cert-file=/a.pem", "mp.redis.tls.key-file=/a.key"
        )
        self.assertEqual(loaded.settings.redis.tls.key_file, "/a.key")

    def test_hosts(self) -> None:
        """Own addresses may be names, but have no port."""
        self.refuse("mp.net.local-ip=10.0.0.1:3000")
        self.refuse("mp.net.public-ip=a b")
        self.assertEqual(
            self.load("mp.net.public-ip=example.com").settings.net.public_ip,
            "example.com",
        )

    def test_paths(self) -> None:
        """Paths of WebSocket and ZooKeeper start with a slash."""
        self.refuse("mp.net.ws-path=ws")
        self.refuse("mp.zk.watch-path=ws")

    def test_redis_nodes(self) -> None:
        """Nodes need a host and a port."""
        for node in ("host", "host:", ":1", "host:0", "host:99999", "a b:1", "a,b:1"):
            self.refuse(*CLUSTER, f'mp.redis.nodes=["{node}"]')
        self.refuse(*CLUSTER, "mp.redis.nodes=host:1")

    def test_zookeeper_servers(self) -> None:
        """Servers are hosts with or without ports, and may end in a path."""
        for servers in ("h:0", "h:1,,g:1", "h:1 g:1", "h:1;g:1", "/path"):
            self.refuse(*CLUSTER, f"mp.zk.server-address={servers}")
        loaded = self.load(*CLUSTER, "mp.zk.server-address= a:1, b , [::1]:3/root")
        self.assertEqual(loaded.settings.zk.server_address, "a:1,b,[::1]:3/root")

    def test_backends(self) -> None:
        """Backends are lists of addresses with or without ports."""
        self.refuse("mp.http.dns-mapping={a: b}")
        self.refuse('mp.http.dns-mapping={a: ["b:x"]}')
        loaded = self.load('mp.http.dns-mapping={"a.b": ["10.0.0.1:8080", c]}')
        self.assertEqual(
            loaded.settings.http.dns_mapping, {"a.b": ("10.0.0.1:8080", "c")}
        )


class ModeTests(LoaderTestCase):
    """
    Half a cluster.
    """

    def test_only_redis(self) -> None:
        """Redis without ZooKeeper is refused, with what is missing and why."""
        error = self.refuse(CLUSTER[0])
        self.assertEqual(error.key, "mp.zk.server-address")
        self.assertIn("because mp.redis.nodes is set", error.problem)
        self.assertEqual(error.source, "--set mp.redis.nodes")

    def test_only_zookeeper(self) -> None:
        """ZooKeeper without Redis is refused, with what is missing and why."""
        error = self.refuse(CLUSTER[1])
        self.assertEqual(error.key, "mp.redis.nodes")
        self.assertIn("because mp.zk.server-address is set", error.problem)


class PortTests(LoaderTestCase):
    """
    Two doors in one place.
    """

    def test_same_port(self) -> None:
        """Two doors on one port are refused, and both are named."""
        for first, second in (
            ("connect", "gateway"),
            ("connect", "admin"),
            ("gateway", "admin"),
            ("gateway", "metrics"),
            ("admin", "metrics"),
            ("admin", "ws"),
        ):
            error = self.refuse(
                f"mp.net.{first}-server-port=5000",
                f"mp.net.{second}-server-port=5000",
            )
            self.assertEqual(error.key, f"mp.net.{second}-server-port")
            self.assertIn(f"mp.net.{first}-server-port", error.problem)

    def test_same_port_on_other_addresses(self) -> None:
        """Doors on different addresses may have the same port."""
        loaded = self.load(
            "mp.net.connect-server-bind-ip=10.0.0.1",
            "mp.net.connect-server-port=3002",
        )
        self.assertEqual(loaded.settings.net.connect_server_port, 3002)

    def test_udp_gateway(self) -> None:
        """A UDP gateway is in nobody's way."""
        self.load("mp.net.gateway-server-net=udp", "mp.net.gateway-server-port=3000")

    def test_alloc_port_of_a_node(self) -> None:
        """The alloc port counts where the node serves alloc, and at a port of its own.

        The alloc process reads the same file as the nodes, where it has a key.
        """
        same = "mp.net.alloc-server-port=3000"
        self.load(same)
        error = self.refuse(same, "mp.alloc.enabled=true")
        self.assertEqual(error.key, "mp.net.alloc-server-port")
        self.load(
            same, "mp.alloc.enabled=true", "mp.net.alloc-server-endpoint=tcp:9999"
        )

    def test_free_ports(self) -> None:
        """Any number of doors may ask for a free port."""
        names = ("connect", "gateway", "admin")
        self.load(*(f"mp.net.{name}-server-port=0" for name in names))


class KeyTests(LoaderTestCase):
    """
    The RSA key pair.
    """

    pair = RsaPrivateKey.generate(1024)

    def test_own_pair(self) -> None:
        """A pair that fits together is taken."""
        loaded = self.load(
            f"mp.security.private-key={self.pair.text()}",
            f"mp.security.public-key={self.pair.public.text()}",
        )
        self.assertEqual(loaded.settings.security.private_key, self.pair.text())

    def test_damaged(self) -> None:
        """A damaged key is found at start."""
        for half in ("private", "public"):
            error = self.refuse(f"mp.security.{half}-key=MIIB")
            self.assertEqual(error.key, f"mp.security.{half}-key")

    def test_halves_of_two_pairs(self) -> None:
        """Keys that do not belong together are refused."""
        other = RsaPrivateKey.generate(1024)
        error = self.refuse(
            f"mp.security.private-key={self.pair.text()}",
            f"mp.security.public-key={other.public.text()}",
        )
        self.assertIn("belong", error.problem)

    def test_public_key_alone(self) -> None:
        """A public key without its private one is refused."""
        error = self.refuse(f"mp.security.public-key={self.pair.public.text()}")
        self.assertEqual(error.key, "mp.security.private-key")

    def test_sample_key(self) -> None:
        """The published pair needs consent, and the refusal says what to type."""
        overrides = ('mp.redis.nodes=["h:1"]',)
        error = self.assertRaises(SettingsError, load_settings, ORIGINAL, overrides, {})
        self.assertEqual([p.key for p in error.problems], ["mp.security.private-key"])
        self.assertIn("mp.security.allow-sample-key=true", error.problem)
        load_settings(ORIGINAL, (*overrides, CLUSTER[2]), {})

    def test_cluster_without_key(self) -> None:
        """A cluster without a key is refused, with both ways out."""
        error = self.refuse(*CLUSTER[:2])
        self.assertEqual(error.key, "mp.security.private-key")
        self.assertIn("a pair of your own", error.problem)
        self.assertIn("mp.security.allow-sample-key=true", error.problem)
