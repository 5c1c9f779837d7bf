"""
A transport for tests of the doors.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport


class FakeTransport(StringTransport):
    """
    A string transport with what the doors' own transport has besides.

    @ivar busy: Whether its buffer is above the high mark.
    @ivar aborted: Whether it was aborted.
    @ivar producerPaused: Whether the producer was told to pause, as on real transports.
    @ivar writes: What was written, one item a call.
    """

    def __init__(self, client: tuple[str, int] = ("192.0.2.1", 40000)) -> None:
        super().__init__()
        self.client = client
        self.busy = False
        self.aborted = False
        self.producerPaused = False
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    @property
    def reading(self) -> bool:
        """
        Whether the peer is read from.
        """
        return self.producerState == "producing"

    def take(self) -> bytes:
        """
        What was written since the last call.
        """
        data: bytes = self.value()
        self.clear()
        self.writes.clear()
        return data
