"""
Tests for L{mpush_tw.integrations.zookeeper.registry} on a server that is well.
"""

from __future__ import annotations

import json
from typing import Any

from kazoo.security import ACL, Id, make_digest_acl

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config.settings import ZkSettings
from mpush_tw.errors import ConfigError, Unavailable
from mpush_tw.integrations.zookeeper import ZooKeeperRegistry, _watches
from mpush_tw.integrations.zookeeper._kazoo import Digest
from mpush_tw.interfaces import (
    IServiceDiscovery,
    IServiceRegistry,
    ServiceNode,
)
from tests.integrations.contracts import steps
from tests.integrations.registry_contract import (
    CS,
    GS,
    FakeServiceListener,
    RegistryContract,
    node,
    pause,
    until,
)
from tests.integrations.zookeeper.support import (
    CREATOR_ALL,
    ZooKeeperTestCase,
    tree_of,
)
from tests.support import VECTORS

_VECTORS = json.loads((VECTORS / "redis-zk.json").read_text())
_STEPS = {step["name"]: step for step in _VECTORS["steps"]}

_STRANGER = make_digest_acl("stranger", "password", all=True)
_ANYONE = ACL(31, Id("world", "anyone"))


class ZooKeeperContractTests(RegistryContract, ZooKeeperTestCase):
    """
    What every registry has to do: one registers, another one watches.
    """

    async def make_registry(self) -> tuple[IServiceRegistry, IServiceDiscovery]:
        ZooKeeperTestCase.setUp(self)
        return await self.started(), await self.started()


class SameObjectTests(RegistryContract, ZooKeeperTestCase):
    """
    The same with one registry, which watches what it has registered itself.
    """

    async def make_registry(self) -> tuple[IServiceRegistry, IServiceDiscovery]:
        ZooKeeperTestCase.setUp(self)
        registry = await self.started()
        return registry, registry

    @steps
    async def test_stop(self) -> None:
        """
        A stopped registry cannot be asked any more.
        """
        await self.registry.stop()
        await self.registry.stop()
        await self.assertFailure(self.discovery.lookup(CS), Unavailable)


class TreeTests(ZooKeeperTestCase):
    """
    What a node writes into an empty ensemble is what the original writes.
    """

    own_server = True

    def setUp(self) -> None:
        super().setUp()
        self.namespace = "mpush"

    async def register_as_recorded(self) -> ZooKeeperRegistry:
        """
        Register the nodes of the recorded server.
        """
        registry = await self.started()
        for path, entry in _STEPS["server-start"]["zookeeper"].items():
            if entry["ephemeral"]:
                service, _, node_id = path.removeprefix("/mpush").rpartition("/")
                form = json.loads(entry["data"])
                await registry.register(
                    ServiceNode(
                        service, form["host"], form["port"], form.get("attrs"), node_id
                    )
                )
        return registry

    @steps
    async def test_tree(self) -> None:
        """
        Paths, data, modes and ACLs of all nodes are those recorded of the original,
        when it runs and after it has stopped.
        """
        registry = await self.register_as_recorded()
        observer = self.observer()
        self.assertEqual(tree_of(observer), _STEPS["server-start"]["zookeeper"])
        await registry.stop()
        self.assertEqual(tree_of(observer), _STEPS["expired"]["zookeeper"])

    @steps
    async def test_without_authentication(self) -> None:
        """
        Who does not know the digest sees as little as with the original.
        """
        await self.register_as_recorded()
        self.assertEqual(tree_of(self.observer(None)), _VECTORS["zookeeperWithoutAuth"])

    @steps
    async def test_recorded_nodes(self) -> None:
        """
        The nodes of two recorded servers are found.
        """
        observer = self.observer()
        tree = _STEPS["server2-start"]["zookeeper"]
        for path, entry in sorted(tree.items()):
            if path != "/":
                observer.create(path, entry["data"].encode(), CREATOR_ALL)
        registry = await self.started()
        self.assertEqual(
            await registry.lookup(CS),
            [
                ServiceNode(
                    CS,
                    "127.0.0.1",
                    3000,
                    {"weight": 1},
                    "0a900027-5680-42fd-b1d6-0912ddb6bc9f",
                ),
                ServiceNode(
                    CS,
                    "127.0.0.1",
                    3100,
                    {"weight": 1},
                    "078a4059-a48a-4141-a968-8ebd9020c8d0",
                ),
            ],
        )
        self.assertEqual(
            [(each.port, each.attributes) for each in await registry.lookup(GS)],
            [(3001, None), (3101, None)],
        )


class AuthenticationTests(ZooKeeperTestCase):
    """
    Digests and ACLs (cluster 3.3).
    """

    async def identity(self, digest: str) -> str:
        """
        The identity that the nodes of a registry with this digest belong to.
        """
        registry = await self.started(digest=digest)
        await registry.register(node("a"))
        observer = self.observer(digest)
        acls = {
            (acl.id.scheme, acl.id.id, acl.perms)
            for path in (self.path(), self.path("cluster"), self.path("cluster/cs/a"))
            for acl in observer.get_acls(path)[0]
        }
        self.assertEqual(len(acls), 1)
        scheme, identity, permissions = acls.pop()
        self.assertEqual((scheme, permissions), ("digest", 31))
        return str(identity)

    @steps
    async def test_not_as_made_by_helpers(self) -> None:
        """
        The identity is not that which helpers make of a name and a password: Java
        nodes could not use such nodes.
        """
        identity = await self.identity("mpush")
        self.assertEqual(identity, "mpush:IoF5XrL443rOdy6w434vrj+58TQ=")
        for password in ("", "mpush"):
            made = make_digest_acl("mpush", password, all=True).id.id
            self.assertNotEqual(identity, made)

    @steps
    async def test_name_and_password(self) -> None:
        """
        A digest may be a name and a password.
        """
        self.assertEqual(
            await self.identity("user:secret"),
            make_digest_acl("user", "secret", all=True).id.id,
        )

    @steps
    async def test_empty(self) -> None:
        """
        An empty digest is an identity as well.
        """
        registry = await self.started(digest="")
        await registry.register(node("a"))
        await self.assertFailure(self.make(digest="mpush").start(), Unavailable)
        acl = [31, {"scheme": "digest", "id": ":2jmj7l5rSw0yVb/vlWAYkK/YBwk="}]
        self.assertEqual(self.acl_by_superuser(self.path()), acl)

    def acl_by_superuser(self, path: str) -> list[Any]:
        """
        The ACL of a node, as one sees it who has the empty digest.
        """
        (acl,) = self.observer(Digest("")).get_acls(path)[0]
        return [acl.perms, {"scheme": acl.id.scheme, "id": acl.id.id}]

    @steps
    async def test_wrong(self) -> None:
        """
        A registry with another digest says so at its start, and does not say which.
        """
        await self.started()
        error = await self.assertFailure(
            self.make(digest="not-this").start(), Unavailable
        )
        self.assertIn("mp.zk.digest", str(error))
        self.assertIn(self.path(), str(error))
        self.assertNotIn("not-this", str(error))

    @steps
    async def test_foreign_parent(self) -> None:
        """
        A service path of another identity fails the registration, with a sentence.
        """
        observer = self.observer()
        observer.create(self.path())
        observer.create(self.path("cluster"), acl=[_STRANGER])
        registry = await self.started()
        error = await self.assertFailure(registry.register(node("a")), Unavailable)
        self.assertIn("mp.zk.digest", str(error))

    @steps
    async def test_open_parents(self) -> None:
        """
        Parents that are open to the world do.
        """
        self.observer(None).ensure_path(self.path("cluster/cs"))
        registry = await self.started()
        await registry.register(node("a"))
        self.assertEqual(await registry.lookup(CS), [node("a")])


class NamespaceTests(ZooKeeperTestCase):
    """
    Where everything is (cluster 3.1, 3.2).
    """

    @steps
    async def test_chroot(self) -> None:
        """
        The namespace is below the path behind the addresses.
        """
        observer = self.observer()
        observer.create(self.path())
        address = self.server.address + self.path()
        registry = await self.started(server_address=address, namespace="inner")
        await registry.register(node("a"))
        self.assertTrue(observer.exists(self.path("inner/cluster/cs/a")))
        self.assertEqual(await registry.lookup(CS), [node("a")])

    @steps
    async def test_no_chroot(self) -> None:
        """
        A path behind the addresses that does not exist fails the start, and is not
        made.
        """
        address = self.server.address + self.path()
        registry = self.make(server_address=address, namespace="inner")
        error = await self.assertFailure(registry.start(), Unavailable)
        self.assertIn(f"the path {self.path()} of mp.zk.server-address", str(error))
        self.assertIsNone(self.observer().exists(self.path()))

    @steps
    async def test_deep(self) -> None:
        """
        A namespace may have several elements, and slashes around them.
        """
        registry = await self.started(namespace=f"/{self.namespace}/a/b/")
        await registry.register(node("n"))
        self.assertTrue(self.observer().exists(self.path("a/b/cluster/cs/n")))

    @steps
    async def test_only_a_chroot(self) -> None:
        """
        Without a namespace the path behind the addresses is the root.
        """
        observer = self.observer()
        observer.create(self.path())
        address = f"{self.server.address}{self.path()}/"
        registry = await self.started(server_address=address, namespace="")
        await registry.register(node("a"))
        self.assertTrue(observer.exists(self.path("cluster/cs/a")))


class DiscoveryTests(ZooKeeperTestCase):
    """
    Other people's nodes (cluster 3.7).
    """

    @steps
    async def test_garbage(self) -> None:
        """
        What is no service node is left out, said once with its path, and harms nobody;
        the nodes beside it are found.
        """
        self.watch_log()
        observer = self.observer()
        good = b'{"host":"10.0.0.1","port":3000}'
        garbage = {
            "empty": b"",
            "text": b"10.0.0.1:3000",
            "binary": bytes(range(256)),
            "number": b"3000",
            "null": b"null",
            "list": b'[{"host":"10.0.0.1","port":3000}]',
            "truncated": good[:-1],
            "deep": b'{"host":"10.0.0.1","port":3000,"attrs":' + b"[" * 300_000,
            "huge": b'{"host":"' + b"x" * 900_000 + b'","port":3000}',
            "no-host": b'{"port":3000}',
            "empty-host": b'{"host":"","port":3000}',
            "null-host": b'{"host":null,"port":3000}',
            "number-host": b'{"host":1,"port":3000}',
            "no-port": b'{"host":"10.0.0.1"}',
            "zero-port": b'{"host":"10.0.0.1","port":0}',
            "large-port": b'{"host":"10.0.0.1","port":65536}',
            "word-port": b'{"host":"10.0.0.1","port":"http"}',
            "list-attrs": b'{"host":"10.0.0.1","port":3000,"attrs":[1]}',
            "ña'me {x}": b"?",
        }
        observer.ensure_path(self.path("cluster/cs"))
        for name, data in garbage.items():
            observer.create(self.path("cluster/cs", name), data)
        observer.create(self.path("cluster/cs/good"), good)
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await until(lambda: listener.nodes)
        for _ in range(2):
            self.assertEqual(await registry.lookup(CS), [node("good")])
        self.assertEqual(listener.nodes, {"good": node("good")})
        for name in garbage:
            said = self.events(repr(self.path("cluster/cs", name)))
            self.assertEqual(len(said), 1, name)

    @steps
    async def test_lenient(self) -> None:
        """
        Other members, another order, blanks and a port in a text are read, as Java
        nodes do.
        """
        observer = self.observer()
        observer.ensure_path(self.path("cluster/cs"))
        observer.create(
            self.path("cluster/cs/a"),
            b' {"persistent" : false, "port": "3000", "name":null, "host":"10.0.0.1"}',
        )
        self.assertEqual(await (await self.started()).lookup(CS), [node("a")])

    @steps
    async def test_becomes_readable(self) -> None:
        """
        A node whose data become readable appears, and vanishes when they no longer are.
        """
        observer = self.observer()
        observer.ensure_path(self.path("cluster/cs"))
        observer.create(self.path("cluster/cs/a"), b"?")
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await registry.lookup(CS)
        observer.set(self.path("cluster/cs/a"), b'{"host":"10.0.0.1","port":3000}')
        await until(lambda: listener.heard)
        observer.set(self.path("cluster/cs/a"), b"?")
        await until(lambda: len(listener.heard) == 2)
        self.assertEqual(listener.heard, [("added", node("a")), ("removed", node("a"))])

    @steps
    async def test_foreign_node(self) -> None:
        """
        A node that only another identity may read is left out.
        """
        self.observer().ensure_path(self.path("cluster/cs"))
        self.observer().set_acls(self.path("cluster/cs"), [_ANYONE])
        self.observer("stranger:password").create(
            self.path("cluster/cs/b"), b'{"host":"10.0.0.2","port":3000}'
        )
        registry = await self.started()
        await registry.register(node("a"))
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await until(lambda: listener.nodes)
        self.assertEqual(await registry.lookup(CS), [node("a")])
        self.assertEqual(listener.nodes, {"a": node("a")})

    @steps
    async def test_foreign_path(self) -> None:
        """
        A service path that belongs to another identity is said to be so by look-ups.
        Who listens to it hears nothing, until it can be read; that is said once.
        """
        self.watch_log()
        self.patch(_watches, "_AGAIN_S", 0.1)
        observer = self.observer()
        observer.create(self.path())
        observer.create(self.path("cluster"))
        observer.create(self.path("cluster/cs"), acl=[_STRANGER])
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        error = await self.assertFailure(registry.lookup(CS), Unavailable)
        self.assertIn("mp.zk.digest", str(error))
        await pause(0.5)
        stranger = self.observer("stranger:password")
        stranger.create(
            self.path("cluster/cs/a"), b'{"host":"10.0.0.1","port":3000}', [_ANYONE]
        )
        stranger.set_acls(self.path("cluster/cs"), [_ANYONE])
        await until(lambda: listener.nodes == {"a": node("a")})
        self.assertEqual(len(self.events("cannot watch " + self.path("cluster/cs"))), 1)

    @steps
    async def test_path_comes_and_goes(self) -> None:
        """
        Who listens to a path that does not exist hears of nodes when it does, and when
        it has been deleted and made again.
        """
        observer = self.observer()
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await registry.lookup(CS)
        for port in (3000, 4000):
            await registry.register(node("a", port))
            await until(lambda: listener.nodes)
            await registry.deregister(node("a"))
            await until(lambda: not listener.nodes)
            observer.delete(self.path("cluster"), recursive=True)
            await until(lambda: not observer.exists(self.path("cluster")))
        self.assertEqual(
            [event for event, _ in listener.heard], ["added", "removed"] * 2
        )

    @steps
    async def test_second_listener(self) -> None:
        """
        Who begins to listen later is told of what is there, and the others are not told
        again.
        """
        registry = await self.started()
        await registry.register(node("a"))
        first, second = FakeServiceListener(), FakeServiceListener()
        registry.subscribe(CS, first)
        await until(lambda: first.nodes)
        registry.subscribe(CS, second)
        await until(lambda: second.nodes)
        self.assertEqual(first.heard, [("added", node("a"))])
        self.assertEqual(second.heard, [("added", node("a"))])

    @steps
    async def test_before_start(self) -> None:
        """
        One may begin to listen before the start.
        """
        await (await self.started()).register(node("a"))
        registry = self.make()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        await registry.start()
        await until(lambda: listener.nodes)

    @steps
    async def test_made_again(self) -> None:
        """
        A node that is deleted and made again at once, as Java nodes do with each new
        connection, and which is what it was, is no news or goes and comes.
        """
        observer = self.observer()
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        observer.ensure_path(self.path("cluster/cs"))
        for port in (3000, 3000, 4000):
            data = b'{"host":"10.0.0.1","port":%d}' % port
            if observer.exists(self.path("cluster/cs/a")):
                observer.delete(self.path("cluster/cs/a"))
            observer.create(self.path("cluster/cs/a"), data)
            await until(lambda port=port: listener.nodes == {"a": node("a", port)})

    @steps
    async def test_many(self) -> None:
        """
        Hundreds of nodes are found and told, more than there can be requests at once.
        """
        observer = self.observer()
        observer.ensure_path(self.path("cluster/cs"))
        transaction = observer.transaction()
        for number in range(600):
            data = b'{"host":"10.0.0.1","port":%d}' % (1 + number)
            transaction.create(self.path("cluster/cs", f"{number:03}"), data)
        transaction.commit()
        registry = await self.started()
        listener = FakeServiceListener()
        registry.subscribe(CS, listener)
        expected = [node(f"{number:03}", 1 + number) for number in range(600)]
        self.assertEqual(await registry.lookup(CS), expected[::-1])
        await until(lambda: len(listener.nodes) == 600)
        self.assertEqual(
            list(listener.nodes[each.node_id] for each in expected), expected
        )

    @steps
    async def test_watch_path(self) -> None:
        """
        Of what is outside of the watched path one hears nothing, which is said once;
        looking it up works.
        """
        self.watch_log()
        registry = await self.started(watch_path="/cluster")
        inside, outside = FakeServiceListener(), FakeServiceListener()
        registry.subscribe(CS, inside)
        for _ in range(2):
            registry.subscribe("/dns/mapping", outside)
        mapping = node("m", 80, "/dns/mapping", {"origin": "api.example.com"})
        await registry.register(mapping)
        await registry.register(node("a"))
        await until(lambda: inside.nodes)
        self.assertEqual(outside.heard, [])
        self.assertEqual(await registry.lookup("/dns/mapping"), [mapping])
        self.assertEqual(len(self.events("mp.zk.watch-path")), 1)
        registry.unsubscribe("/dns/mapping", outside)


class RegistrationTests(ZooKeeperTestCase):
    """
    This process's own nodes (cluster 3.6).
    """

    @steps
    async def test_deleted_by_operator(self) -> None:
        """
        A node that somebody else deletes comes back within seconds, as often as it is
        deleted, with all of its parents.
        """
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        path = self.path("cluster/cs/a")
        for deleted in (path, path, self.path("cluster")):
            observer.delete(deleted, recursive=True)
            await until(lambda: observer.exists(path), 5.0)
        self.assertEqual(await registry.lookup(CS), [node("a")])

    @steps
    async def test_withdrawn_is_forgotten(self) -> None:
        """
        A node that was withdrawn does not come back (C-22).
        """
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        observer.delete(self.path("cluster/cs/a"))
        await registry.deregister(node("a"))
        await pause(0.5)
        self.assertIsNone(observer.exists(self.path("cluster/cs/a")))

    @steps
    async def test_older_session(self) -> None:
        """
        A node of an older session at the same path is replaced.
        """
        observer = self.observer()
        observer.ensure_path(self.path("cluster/cs"))
        observer.create(self.path("cluster/cs/a"), b"old", ephemeral=True)
        registry = await self.started()
        await registry.register(node("a"))
        self.assertEqual(await registry.lookup(CS), [node("a")])
        stat = observer.exists(self.path("cluster/cs/a"))
        self.assertNotIn(stat.ephemeralOwner, (0, observer.client_id[0]))

    @steps
    async def test_persistent_tree(self) -> None:
        """
        So is a persistent one, with its children.
        """
        observer = self.observer()
        observer.ensure_path(self.path("cluster/cs/a/b/c"))
        observer.ensure_path(self.path("cluster/cs/a/d"))
        registry = await self.started()
        await registry.register(node("a"))
        self.assertEqual(await registry.lookup(CS), [node("a")])
        self.assertTrue(observer.exists(self.path("cluster/cs/a")).ephemeralOwner)

    @steps
    async def test_left_alone(self) -> None:
        """
        A node that is there and ours is not made again: peers see no coming and going.
        """
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        before = observer.exists(self.path("cluster/cs/a"))
        await registry.register(node("a"))
        await pause(0.5)
        self.assertEqual(observer.exists(self.path("cluster/cs/a")), before)

    @steps
    async def test_changed_by_operator(self) -> None:
        """
        What an operator writes into a node, for instance another weight, stays.
        """
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a", attributes={"weight": 1}))
        observer.set(
            self.path("cluster/cs/a"),
            b'{"attrs":{"weight":9},"host":"10.0.0.1","port":3000}',
        )
        await pause(0.5)
        self.assertEqual(
            await registry.lookup(CS), [node("a", attributes={"weight": 9})]
        )

    @steps
    async def test_several_at_once(self) -> None:
        """
        Several registries may register at the same time in an empty namespace.
        """
        registries = [await self.started() for _ in range(4)]
        pending = [
            registry.register(node(f"n{number}"))
            for number, registry in enumerate(registries)
        ]
        for each in pending:
            await each
        self.assertEqual(
            await registries[0].lookup(CS), [node(f"n{n}") for n in (3, 2, 1, 0)]
        )

    @steps
    async def test_may_not_be_deleted(self) -> None:
        """
        A node that may not be deleted is withdrawn nevertheless, which is said; it goes
        with the session.
        """
        self.watch_log()
        observer = self.observer()
        registry = await self.started()
        await registry.register(node("a"))
        observer.set_acls(self.path("cluster/cs"), [_STRANGER])
        await registry.deregister(node("a"))
        path = self.path("cluster/cs/a")
        self.assertEqual(len(self.events(f"cannot delete {path}")), 1)
        self.assertTrue(observer.exists(path))
        await registry.stop()
        self.assertIsNone(observer.exists(path))

    @steps
    async def test_too_large(self) -> None:
        """
        Attributes that ZooKeeper would not take are refused; the session goes on.
        """
        registry = await self.started()
        large = node("a", attributes={"text": "x" * 1_100_000})
        error = await self.assertFailure(registry.register(large), Unavailable)
        self.assertIn("bytes of attributes", str(error))
        await registry.register(node("a"))
        self.assertEqual(await registry.lookup(CS), [node("a")])

    @steps
    async def test_no_id(self) -> None:
        """
        A node without an id, or with one that is a path, is refused; withdrawing it
        is no error.
        """
        registry = await self.started()
        for node_id in ("", "a/b"):
            await self.assertFailure(registry.register(node(node_id)), ValueError)
            await registry.deregister(node(node_id))


class SettingsTests(SynchronousTestCase):
    """
    Settings that cannot be used.
    """

    def test_impossible_paths(self) -> None:
        """
        A path that ZooKeeper cannot have is refused, with the key.
        """
        for key, changed in {
            "mp.zk.namespace": {"namespace": "a/../b"},
            "mp.zk.watch-path": {"watch_path": "/."},
            "mp.zk.server-address": {"server_address": "127.0.0.1:2181/a\x00"},
        }.items():
            settings = ZkSettings(**({"server_address": "127.0.0.1:2181"} | changed))
            with self.assertRaises(ConfigError) as caught:
                ZooKeeperRegistry(settings, None)
            self.assertEqual(caught.exception.key, key)
