"""
Mappings that administrators keep in ZooKeeper (cluster 3.10), on a real one.
"""

from __future__ import annotations

from twisted.internet import reactor

from mpush_tw.integrations.http.dns_mapping import DnsMapping
from mpush_tw.interfaces import DnsTarget
from tests.integrations.contracts import steps
from tests.integrations.registry_contract import until
from tests.integrations.zookeeper.support import ZooKeeperTestCase


class ZooKeeperMappingTests(ZooKeeperTestCase):
    """
    Nodes below C{/dns/mapping}.
    """

    async def mapping(self) -> DnsMapping:
        """
        Start a mapping.
        """
        mapping = DnsMapping({"a.test": ["10.0.0.1"]}, await self.started(), reactor)
        self.addCleanup(mapping.stop)
        await mapping.start()
        return mapping

    @steps
    async def test_empty(self) -> None:
        """
        Without any, what the settings say counts.
        """
        mapping = await self.mapping()
        self.assertEqual(mapping.lookup("a.test"), DnsTarget("10.0.0.1", 80))

    @steps
    async def test_come_and_go(self) -> None:
        """
        An administrator's entries serve for as long as they are there; those that were
        there at the start, and those that came later. Entries that say nothing of use
        are left out.
        """
        observer = self.observer()
        base = self.path("dns/mapping")
        observer.ensure_path(base)
        observer.create(
            f"{base}/1",
            b'{"attrs":{"origin":"api.example.com"},"host":"10.0.0.7","port":8080}',
        )
        observer.create(f"{base}/no-origin", b'{"host":"10.0.0.8","port":8080}')
        observer.create(f"{base}/garbage", b"\xff\x00?")
        mapping = await self.mapping()
        first = DnsTarget("10.0.0.7", 8080)
        self.assertEqual(mapping.lookup("api.example.com"), first)
        observer.create(
            f"{base}/2", b'{"attrs":{"origin":"a.test"},"host":"10.0.0.9","port":81}'
        )
        await until(lambda: mapping.lookup("a.test") == DnsTarget("10.0.0.9", 81))
        observer.set(
            f"{base}/1",
            b'{"attrs":{"origin":"api.example.com"},"host":"10.0.0.6","port":80}',
        )
        await until(
            lambda: mapping.lookup("api.example.com") == DnsTarget("10.0.0.6", 80)
        )
        observer.delete(f"{base}/1")
        observer.delete(f"{base}/2")
        await until(lambda: mapping.lookup("api.example.com") is None)
        await until(lambda: mapping.lookup("a.test") == DnsTarget("10.0.0.1", 80))
