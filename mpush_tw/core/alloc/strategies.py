"""
The order in which a client is told the servers (services A8).

A strategy is called once for each answer, with the servers sorted by address. None of
them loses or doubles an entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import attrs

from mpush_tw.core.alloc.servers import Server

NEAR = 0.1
"""
Servers within ten per cent of the one with the fewest users are as good as it (A-3).
"""


@attrs.frozen
class Candidate:
    """
    A server that may be handed out.

    @ivar online: Its users at the last count; C{None} before the first.
    @ivar handed_out: How often it was the first of an answer since then: about as many
        clients are on their way to it.
    """

    server: Server
    online: int | None
    handed_out: int = 0

    @property
    def load(self) -> float:
        """
        Users for each unit of weight.
        """
        return ((self.online or 0) + self.handed_out) / self.server.weight


Strategy = Callable[[Sequence[Candidate]], list[Candidate]]
"""
Puts candidates, none of weight 0, into the order in which to try them.
"""


def make_strategy(name: str, random: Random) -> Strategy:
    """
    Make the strategy that C{mp.alloc.strategy} names. One that takes turns has a state,
    so each list needs its own.
    """
    made: dict[str, Callable[[Random], Strategy]] = {
        "online": FewestUsers,
        "weight": ByWeight,
        "random": Shuffled,
        "round-robin": lambda _: InTurn(),
    }
    return made[name](random)


class FewestUsers:
    """
    C{online}: the least loaded first.

    The first answer after a count is exactly by load, servers of equal load by address.
    More answers than that before the next count are a rush: then those near the
    minimum are shuffled, or everybody would be sent to one server (A-3). That clients
    have been sent somewhere counts at once; it does not wait for the next count.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        ranked = sorted(candidates, key=lambda one: one.load)
        if any(one.handed_out for one in ranked):
            limit = ranked[0].load * (1 + NEAR)
            near = [one for one in ranked if one.load <= limit]
            rest = ranked[len(near) :]
            self._random.shuffle(near)
            ranked = near + rest
        return ranked


class ByWeight:
    """
    C{weight}: by chance; how often a server is first is in proportion to its weight,
    and so on for the rest.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        # Each waits for an event that happens the more often the heavier it is.
        return sorted(
            candidates,
            key=lambda one: -math.log(1 - self._random.random()) / one.server.weight,
        )


class Shuffled:
    """
    C{random}: any order is as likely as any other.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        return self._random.sample(candidates, len(candidates))


class InTurn:
    """
    C{round-robin}: by address, beginning one further in every answer.
    """

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        first = self._turn % len(candidates) if candidates else 0
        self._turn = first + 1
        return [*candidates[first:], *candidates[:first]]
