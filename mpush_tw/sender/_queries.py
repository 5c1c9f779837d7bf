"""
Questions to gateways: how many would get a broadcast, what became of a push, how far a
task is.

GATEWAY_QUERY is ours. A node of the original answers ERROR 101 and closes the
connection (cluster 4.4), so over TCP each question has a connection of its own, and the
links that pushes use are not risked; over UDP a node of the original drops it. All
questions may be put again without harm. Every one gets an answer in time: what the node
says, or the reason why it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
)
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mpush_tw.errors import ProtocolError, PushError
from mpush_tw.protocol.commands import Command, ErrorCode
from mpush_tw.protocol.gateway import GatewayQuery
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.protocol.packet import PacketDecoder, encode_packet
from mpush_tw.sender._waiters import all_of
from mpush_tw.sender.directory import Address

_Form = TypeVar("_Form", bound=msgspec.Struct)

QUERY_TIMEOUT = 10.0
"""
Seconds that a gateway has for an answer, connecting included.
"""

NO_ANSWERS = "cannot tell: a node of the original"
NOT_IN_TIME = "no answer in time"
STOPPED = "the sender was stopped"
TOO_LONG = "the answer is too long"
"""
What a node says of an answer that does not fit into a packet. Part of it may be asked
for instead.
"""

_AT_A_TIME = 16
_UNREADABLE = "unreadable answer"
_CLOSED = "the connection was closed"

_log = Logger()


class QueryAnswer(NamedTuple):
    """
    What came of a question to one gateway.

    @ivar data: The JSON object of the answer, as text; C{None} if there is none.
    @ivar reason: Then, why not.
    """

    address: Address
    data: str | None
    reason: str = ""

    def read(self, form: type[_Form]) -> _Form | None:
        """
        Read the answer; C{None} if there is none, or if it is something else.
        """
        if self.data is None:
            return None
        try:
            return msgspec.json.decode(self.data, type=form)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None

    @property
    def trouble(self) -> str:
        """
        Why there is no answer that could be read.
        """
        return self.reason or _UNREADABLE


def read_query_answer(address: Address, cmd: int, body: bytes) -> QueryAnswer | None:
    """
    Read what a gateway sent.

    @return: C{None} for what answers no question.
    @raise ProtocolError: If it cannot be read.
    """
    if cmd == Command.OK:
        ok = Ok.decode(body)
        if ok.cmd != Command.GATEWAY_QUERY:
            return None
        return QueryAnswer(address, ok.data or "")
    if cmd != Command.ERROR:
        return None
    error = Error.decode(body)
    if error.code == ErrorCode.UNSUPPORTED_CMD:
        return QueryAnswer(address, None, NO_ANSWERS)
    return QueryAnswer(address, None, error.reason or f"error {error.code}")


class _Asking(Protocol):
    """
    A connection for one question.

    @ivar answered: Fires with the answer, or the reason why there is none.
    """

    def __init__(
        self, address: Address, session_id: int, packet: bytes, max_answer: int
    ) -> None:
        self._address = address
        self._session_id = session_id
        self._packet = packet
        self._decoder = PacketDecoder(max_answer)
        self._given_up = False
        self.answered: Deferred[QueryAnswer] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._packet)

    def dataReceived(self, data: bytes) -> None:
        try:
            for cmd, _, session_id, body in self._decoder.receive(data):
                if session_id == self._session_id:
                    self._received(read_query_answer(self._address, cmd, body))
        except ProtocolError as error:
            self._received(QueryAnswer(self._address, None, str(error)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._received(QueryAnswer(self._address, None, _CLOSED))

    def _received(self, answer: QueryAnswer | None) -> None:
        if answer is not None and not self.answered.called and not self._given_up:
            self.answered.callback(answer)

    def close(self) -> None:
        """
        Hang up.
        """
        transport: Any = self.transport
        self._given_up = not self.answered.called
        if self._given_up:
            transport.abortConnection()
        else:
            transport.loseConnection()


class _AskingFactory(Factory):
    noisy = False

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def buildProtocol(self, addr: IAddress | None) -> _Asking:
        return _Asking(*self._arguments)


def ask_over_tcp(
    endpoint: IStreamClientEndpoint,
    address: Address,
    session_id: int,
    packet: bytes,
    max_answer: int,
) -> Deferred[QueryAnswer]:
    """
    Connect, ask, and hang up.

    @param max_answer: Longest answer that is taken, in bytes.
    @return: A Deferred that may be cancelled.
    """

    async def ask() -> QueryAnswer:
        factory = _AskingFactory(address, session_id, packet, max_answer)
        try:
            protocol: Any = await endpoint.connect(factory)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError() from None
        except Exception as error:
            return QueryAnswer(address, None, f"not connected: {error}")
        try:
            answer: QueryAnswer = await protocol.answered
        finally:
            protocol.close()
        return answer

    return Deferred.fromCoroutine(ask())


class Queries:
    """
    Asks gateways, a few at a time.
    """

    def __init__(
        self,
        ask: Callable[[Address, int, bytes], Deferred[QueryAnswer]],
        next_session_id: Callable[[], int],
        clock: Any,
        max_packet_size: int,
    ) -> None:
        """
        @param ask: L{IGatewayPool.query}.
        @param clock: Provides C{IReactorTime}.
        @param max_packet_size: Longest question, in bytes.
        """
        self._ask = ask
        self._next_session_id = next_session_id
        self._clock = clock
        self._max_packet_size = max_packet_size
        self._slots = DeferredSemaphore(_AT_A_TIME)
        self._asking: set[Deferred[QueryAnswer]] = set()
        self._stopped = False

    def ask_all(
        self, addresses: Iterable[Address], query: GatewayQuery, seconds: float
    ) -> Deferred[list[QueryAnswer]]:
        """
        Put one question to several gateways.

        @param seconds: For each gateway, from when it is its turn.
        @return: A Deferred firing with an answer of each, in the order of their
            addresses. It may be cancelled.
        @raise PushError: If the question is too long.
        """
        asking = [self.ask(address, query, seconds) for address in sorted(addresses)]
        return all_of(asking)

    def ask(
        self, address: Address, query: GatewayQuery, seconds: float
    ) -> Deferred[QueryAnswer]:
        """
        Put a question to one gateway, as L{ask_all}.
        """
        body = query.encode()
        if len(body) > self._max_packet_size:
            raise PushError(
                f"the question is too large: it has {len(body)} bytes, "
                f"the limit is {self._max_packet_size}"
            )
        return self._slots.run(self._ask_one, address, body, seconds)

    def _ask_one(
        self, address: Address, body: bytes, seconds: float
    ) -> Deferred[QueryAnswer]:
        return Deferred.fromCoroutine(self._answer_of(address, body, seconds))

    async def _answer_of(
        self, address: Address, body: bytes, seconds: float
    ) -> QueryAnswer:
        if self._stopped:
            return QueryAnswer(address, None, STOPPED)
        session_id = self._next_session_id()
        packet = encode_packet(Command.GATEWAY_QUERY, session_id, 0, body)
        asking = self._ask(address, session_id, packet)
        asking.addTimeout(seconds, self._clock)
        self._asking.add(asking)
        try:
            return await asking
        except TimeoutError:
            return QueryAnswer(address, None, NOT_IN_TIME)
        except CancelledError:
            if self._stopped:
                return QueryAnswer(address, None, STOPPED)
            raise
        except Exception:
            _log.failure("a question to a gateway broke off")
            return QueryAnswer(address, None, "the question broke off")
        finally:
            self._asking.discard(asking)

    def stop(self) -> None:
        """
        Wait for no more answers.
        """
        self._stopped = True
        for asking in list(self._asking):
            asking.cancel()
