"""
What the tests on a real ZooKeeper share.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import Any
from uuid import uuid4

from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NoNodeError
from kazoo.retry import KazooRetry
from kazoo.security import ACL, Id

from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from mpush_tw.config.settings import ZkRetrySettings, ZkSettings
from mpush_tw.integrations.zookeeper import ZooKeeperRegistry, _registrations
from tests.servers.zookeeper import ZooKeeperServer

CREATOR_ALL = [ACL(31, Id("auth", ""))]

QUIET = logging.Logger("test", logging.CRITICAL)
"""
For clients of kazoo's own, whose complaints are not what is tested.
"""

_shared: list[ZooKeeperServer] = []


def shared_server() -> ZooKeeperServer:
    """
    A server for tests that leave it alone, each with a namespace of its own. It is
    started with the first and stopped with the process.
    """
    if not _shared:
        server = ZooKeeperServer()
        server.start()
        atexit.register(server.stop)
        _shared.append(server)
    return _shared[0]


class ZooKeeperTestCase(TestCase):
    """
    A test with a server.

    @ivar own_server: Whether the test treats the server badly, or needs an empty one.
    @ivar server: It runs.
    @ivar namespace: This test's.
    """

    own_server = False
    timeout = 60

    def setUp(self) -> Any:
        self.addCleanup(self.no_threads_left)
        self.patch(_registrations, "_AGAIN_S", 0.1)
        if self.own_server:
            self.server = ZooKeeperServer()
            self.server.start()
            self.addCleanup(self.server.stop)
        else:
            self.server = shared_server()
        self.namespace = f"test-{uuid4()}"

    def no_threads_left(self) -> None:
        """
        Assert that the threads of all registries have ended.
        """
        deadline = time.monotonic() + 2.0
        while any(each.name.startswith("zookeeper") for each in threading.enumerate()):
            self.assertLess(time.monotonic(), deadline, threading.enumerate())
            time.sleep(0.01)

    def settings(self, **changed: Any) -> ZkSettings:
        """
        Settings for the server, with a session of two seconds and quick retries.
        """
        values = {
            "server_address": self.server.address,
            "namespace": self.namespace,
            "session_timeout": 2.0,
            "connection_timeout": 2.0,
            "retry": ZkRetrySettings(base_sleep_time=0.2, max_retries=3, max_sleep=0.5),
        }
        return ZkSettings(**(values | changed))

    def make(self, **changed: Any) -> ZooKeeperRegistry:
        """
        Make a registry; it is stopped after the test.
        """
        registry = ZooKeeperRegistry(self.settings(**changed), reactor)
        self.addCleanup(registry.stop)
        return registry

    async def started(self, **changed: Any) -> ZooKeeperRegistry:
        """
        Make and start a registry.
        """
        registry = self.make(**changed)
        await registry.start()
        return registry

    def observer(self, digest: str | None = "mpush", **more: Any) -> KazooClient:
        """
        Another client of the server, which blocks: an operator, or a Java node.

        @param digest: Its authentication; L{None} for none.
        """
        client = KazooClient(
            self.server.address,
            auth_data=None if digest is None else [("digest", digest)],
            default_acl=None if digest is None else CREATOR_ALL,
            # A test must not hang in a server that does not answer.
            connection_retry=KazooRetry(max_tries=100, max_delay=0.2),
            logger=QUIET,
            **more,
        )
        client.start(timeout=10)

        def stop() -> None:
            client.stop()
            client.close()

        self.addCleanup(stop)
        return client

    def path(self, *elements: str) -> str:
        """
        A path below this test's namespace.
        """
        return "/".join(("", self.namespace, *elements))

    def events(self, text: str) -> list[dict[str, Any]]:
        """
        The lines logged so far, through the test run's observer, that hold a text.
        """
        return [event for event in self.logged if text in event["log_text"]]

    def watch_log(self) -> None:
        """
        Collect what is logged from now on, for L{events}.
        """
        self.logged: list[dict[str, Any]] = []

        def observe(event: dict[str, Any]) -> None:
            self.logged.append(event | {"log_text": formatEvent(event)})

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)


def tree_of(client: KazooClient, path: str = "/") -> dict[str, Any]:
    """
    A tree in the form of C{vectors/redis-zk.json}, without ZooKeeper's own nodes.
    """
    found: dict[str, Any] = {}
    _collect(client, path, found)
    return found


def _collect(client: KazooClient, path: str, found: dict[str, Any]) -> None:
    if path == "/zookeeper":
        return
    entry: dict[str, Any] = {}
    children: list[str] = []
    try:
        data, stat = client.get(path)
        entry |= {
            "data": data.decode(),
            "ephemeral": bool(stat.ephemeralOwner),
            "version": stat.version,
        }
    except NoAuthError:
        entry["error"] = "NoAuthError"
    except NoNodeError:
        return
    try:
        entry["acl"] = [
            {"scheme": acl.id.scheme, "id": acl.id.id, "perms": acl.perms}
            for acl in client.get_acls(path)[0]
        ]
    except NoAuthError:
        entry["aclError"] = "NoAuthError"
    try:
        children = client.get_children(path)
    except NoAuthError:
        entry["childrenError"] = "NoAuthError"
    found[path] = entry
    for child in children:
        _collect(client, f"{path.rstrip('/')}/{child}", found)
