"""
Tests for L{mpush_tw.integrations.memory.registry}.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mpush_tw.integrations.memory import MemoryRegistry
from mpush_tw.interfaces import IServiceDiscovery, IServiceRegistry
from tests.integrations.registry_contract import RegistryContract


class MemoryRegistryTests(RegistryContract, TestCase):
    """
    Registry and discovery in one process.
    """

    async def make_registry(self) -> tuple[IServiceRegistry, IServiceDiscovery]:
        registry = MemoryRegistry()
        await registry.start()
        return registry, registry
