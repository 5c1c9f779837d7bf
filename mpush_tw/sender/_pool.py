"""
The way to the gateways as a push sees it, over TCP (L{_link}) or by datagram.

A push asks a gateway one question, a GATEWAY_PUSH packet, and gets one L{Answer}
(cluster 4.4). Which gateways there are is said by the sender's directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.commands import Command, ErrorCode, command_name
from mpush_tw.protocol.gateway import TimePoints, decode_push_result
from mpush_tw.protocol.messages import Error, Ok
from mpush_tw.sender._queries import QueryAnswer
from mpush_tw.sender.directory import Address

CONNECT_TIMEOUT = 4.0
"""
Seconds for one attempt to connect to a gateway, for a sender to start, and for the
connections to close (cluster 4.9).
"""

_log = Logger()


class Verdict(Enum):
    """
    What one gateway said of one push.
    """

    DELIVERED = "delivered"
    OFFLINE = "offline"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"


class Answer(NamedTuple):
    """
    A verdict, with the gateway's time points where it sent any.

    @ivar text: The data of an OK, the reason of an ERROR; C{None} without an answer.
    """

    verdict: Verdict
    points: TimePoints = ()
    text: str | None = None


AnswerReceived = Callable[[Answer], None]

GroupAnswerReceived = Callable[[Address, Answer], None]
"""
Told which gateway answers, as the directory names it if it does, and what it says.
"""

_VERDICTS = {
    int(ErrorCode.OFFLINE): Verdict.OFFLINE,
    int(ErrorCode.ROUTER_CHANGE): Verdict.ELSEWHERE,
}
"""
Every other ERROR is a failure; the original hangs on those (defect C-37).
"""


class IGatewayLink(Interface):
    """
    Where questions for one gateway are put.
    """

    def ask(session_id: int, packet: bytes, answered: AnswerReceived) -> bool:
        """
        Send a GATEWAY_PUSH; the entry for its answer is made first (C-38).

        @param session_id: That of the packet; no open question has it.
        @param answered: Called once with the answer, or with a failure if none can
            come any more, unless L{forget} is called before. Maybe before this returns.
        @return: C{False} if it was not sent: the link is closing, too much waits in
            front of it already, or the packet is too large for it.
        """

    def forget(session_id: int) -> None:
        """
        Drop whatever answer still comes for a question.
        """


class IGatewayPool(Interface):
    """
    The links to all gateways.
    """

    pending = Attribute("How many questions are open on all links.")
    addresses = Attribute("A tuple of all gateways that L{set_gateways} named.")
    window_bytes = Attribute(
        "How many bytes of a list may be on their way to one gateway at a time."
    )

    def start() -> None:
        """
        Begin to make links, once.

        @raise Unavailable: If that is in vain whatever the gateways are.
        """

    def stop() -> Deferred[None]:
        """
        Close all links, for good. Open questions are answered as failures or forgotten.

        @return: A Deferred firing when all is closed, after L{CONNECT_TIMEOUT} seconds
            at the latest.
        """

    def set_gateways(addresses: Iterable[Address]) -> None:
        """
        Learn which gateways there are now: links to new ones are made, and those to the
        ones that are gone are closed when what was asked there has been answered.
        """

    def knows(address: Address) -> bool:
        """
        Whether L{set_gateways} named this gateway.
        """

    def choose(address: Address) -> IGatewayLink | None:
        """
        Pick a link to a gateway; C{None} if there is none now.
        """

    def link(address: Address) -> Deferred[IGatewayLink | None]:
        """
        Wait for a link to a gateway, as long as connecting has not failed. May be
        cancelled.

        @return: A Deferred firing with C{None} when connecting has failed, at once if
            it had when it was tried last; also when the gateway is not known, or not
            any more.
        """

    def ask_group(
        session_id: int, packet: bytes, answered: GroupAnswerReceived
    ) -> bool:
        """
        Send a GATEWAY_PUSH to all gateways in one datagram (cluster 7.9). Who does not
        answer may not have got it.

        @param session_id: That of the packet; no open question has it.
        @param answered: Called with each gateway's answer, of which each is told once,
            until L{forget} is called or the pool stops.
        @return: C{False} if it was not sent: the gateways have to be asked one by one.
        """

    def forget(session_id: int) -> None:
        """
        Drop whatever answers still come for a question to the group.
        """

    def query(
        address: Address, session_id: int, packet: bytes
    ) -> Deferred[QueryAnswer]:
        """
        Send a GATEWAY_QUERY to a gateway. To be cancelled when it takes too long.

        @param session_id: That of the packet; no open question has it.
        @return: A Deferred firing with the answer, or the reason why there is none.
        """

    def opened() -> Deferred[None]:
        """
        Wait until any gateway can be asked. May be cancelled.
        """

    def settled() -> Deferred[None]:
        """
        Wait until each gateway known now can be asked or has failed once. May be
        cancelled.
        """


def read_answer(address: Address, cmd: int, body: bytes) -> Answer | None:
    """
    Read what a gateway sent.

    @param address: Of the gateway, for the log.
    @return: C{None} for what answers no push.
    @raise ProtocolError: For what a sender cannot be sent.
    """
    if cmd == Command.OK:
        ok = Ok.decode(body)
        if ok.cmd != Command.GATEWAY_PUSH:
            return None
        return Answer(Verdict.DELIVERED, decode_push_result(ok.data), ok.data)
    if cmd == Command.HEARTBEAT:
        return None
    if cmd != Command.ERROR:
        raise ProtocolError(f"unexpected command {command_name(cmd)}")
    # Whatever its cmd byte says: ERROR 101 does not name GATEWAY_PUSH.
    error = Error.decode(body)
    verdict = _VERDICTS.get(error.code, Verdict.FAILED)
    if verdict is Verdict.FAILED and error.code != ErrorCode.PUSH_CLIENT_FAILURE:
        _log.warn(
            "gateway {host}:{port} failed a push: {code} {reason}",
            host=address[0],
            port=address[1],
            code=error.code,
            reason=error.reason,
        )
    return Answer(verdict, decode_push_result(error.data), error.reason)
