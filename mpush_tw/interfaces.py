"""
Every zope interface of the server, grouped by room: the page an extender reads.

An interface is a contract: who calls a method and when, whether it may wait, what it
may raise, and what a right answer guarantees. Methods that may wait return a Deferred;
where a plain value is allowed as well the annotation says so, and the server waits for
either. Every wait on a provider is bounded by the server.

Order of events, fixed for all listeners (server 13, DESIGN 5.13):

  1. L{ServerStarted}, when every door is open and registered;
  2. for a connection: L{UserOnline} after the routes are written and the context is
  set,
     before OK reaches the device; L{RouteChanged} before the L{UserOnline} that caused
     it; L{UserOffline} after the routes are gone; L{ConnectionClosed} last;
  3. L{ServerStopping}, before anything is deregistered or closed.

Events are delivered in the order they were posted, after the handler that posted them
has returned; a listener that raises is logged and harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from mpush_tw.core.connection import Answer
    from mpush_tw.core.push.request import Outcome, PushRequest
    from mpush_tw.protocol.gateway import TimePoints


# ----------------------------------------------------------------- values


@attrs.frozen
class ServiceNode:
    """
    One entry of the service registry (cluster 3.5).

    @ivar service: Path below the namespace: C{/cluster/cs}, C{/cluster/ws},
        C{/cluster/gs} or C{/dns/mapping}.
    @ivar host: Address as peers are to use it; compared as text, never resolved.
    @ivar attributes: C{None} for gateway and WebSocket nodes.
    @ivar node_id: Last element of the path; a lower-case UUID for our own nodes.
    """

    service: str
    host: str
    port: int
    attributes: Mapping[str, object] | None = None
    node_id: str = ""


@attrs.frozen
class UpstreamMessage:
    """
    A PUSH that a device sent to the server (server 8.6).

    @ivar user_id: The bound user; C{None} before BIND.
    @ivar session_id: Packet number that the device chose, signed 32 bits.
    @ivar content: The body, decrypted and inflated; may be empty.
    @ivar flags: 4 asks for a business ack, 8 for an automatic one.
    """

    connection_id: str
    device_id: str | None
    user_id: str | None
    tags: str | None
    os_name: str | None
    client_version: str | None
    session_id: int
    content: bytes
    flags: int


# ----------------------------------------------------------------- events


@attrs.frozen
class ServerStarted:
    """
    All doors are open and, in a cluster, registered.
    """


@attrs.frozen
class ServerStopping:
    """
    A stop has begun; nothing has been closed yet.
    """


@attrs.frozen
class UserOnline:
    """
    A device was bound to C{user_id}. A repeated BIND of the same user posts nothing.
    """

    user_id: str
    connection_id: str
    device_id: str
    client_type: int


@attrs.frozen
class UserOffline:
    """
    A device was unbound, or the connection that owned its local route ended.

    @ivar still_here: Whether another connection of this node holds the user (S-5).
    """

    user_id: str
    connection_id: str
    device_id: str | None
    client_type: int
    still_here: bool


@attrs.frozen
class RouteChanged:
    """
    A BIND displaced an older route of the same user and client type.

    @ivar local: Whether the old route was a connection of this node.
    @ivar host: Gateway host of the node that held it; empty for this node.
    @ivar port: Gateway port of that node; 0 for this node.
    """

    user_id: str
    client_type: int
    connection_id: str | None
    device_id: str | None
    local: bool
    host: str = ""
    port: int = 0


@attrs.frozen
class UserKicked:
    """
    KICK was written to a connection of this node.

    @ivar from_remote: Whether another node asked for it.
    """

    user_id: str
    device_id: str | None
    connection_id: str
    from_remote: bool


@attrs.frozen
class ConnectionOpened:
    """
    A door accepted a connection.

    @ivar door: C{conn}, C{ws} or C{gateway}.
    """

    door: str
    connection_id: str


@attrs.frozen
class ConnectionClosed:
    """
    A connection ended; its routes have been cleaned up.
    """

    door: str
    connection_id: str
    device_id: str | None
    user_id: str | None


Event = (
    ServerStarted
    | ServerStopping
    | UserOnline
    | UserOffline
    | RouteChanged
    | UserKicked
    | ConnectionOpened
    | ConnectionClosed
)


class IServerEventListener(Interface):
    """
    Hears what happens on a node (server 13, 19.2).
    """

    def event_occurred(event: Event) -> Deferred[None] | None:
        """
        Take note of one event.

        Called in posting order, from the reactor, never inside a packet handler. A
        Deferred is not waited for; its failure is logged.
        """


# -------------------------------------------------------- the core, extensible


class IBindValidator(Interface):
    """
    Decides who may be bound (server 8.4, 19.2). The default says yes.
    """

    def validate(user_id: str, data: str | None) -> bool | Deferred[bool]:
        """
        Decide whether the connection that sent this BIND may be bound.

        The server waits for the answer before it handles the next packet of the same
        connection, for ten seconds at most. An exception or a time-out ends in ERROR
        100 and close.

        @param user_id: Never empty.
        @param data: Free text of the BIND, for instance a token.
        """


class IClientClassifier(Interface):
    """
    Sorts devices into client types: one connection of a user per type (server 11.1).

    Every node and every sender of a cluster must use the same one.
    """

    def client_type(os_name: str | None) -> int:
        """
        @param os_name: As the device sent it, C{None} when it sent none.
        @return: -128 to 127, not 0. The built-in types are 1 mobile, 2 PC, 3 web, -1
            unknown.
        """


class IUpstreamHandler(Interface):
    """
    Takes the messages that devices push to the server (server 8.6, 19.2).
    """

    def message_received(message: UpstreamMessage) -> Deferred[None] | None:
        """
        Take one message.

        With C{AUTO_ACK} in the flags the server acknowledges when this returned without
        raising, or when its Deferred fired; an error means no acknowledgement, and
        is logged. The next packet of that connection waits, ten seconds at most.
        """


class IPushListener(Interface):
    """
    Learns how pushes ended: the answering side of a push source (server 14.4, 19.2).
    """

    def push_finished(
        request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Called exactly once for each accepted request; must not wait.

        @param points: Milestones of this push on this node.
        """


# ------------------------------------------------------------------- storage


class ICache(Interface):
    """
    The shared store: what the original keeps in Redis (cluster 2, server 19.2).

    Keys and values are texts. Every method may fail with
    L{mpush_tw.errors.Unavailable}; every one ends within a few seconds. A store that
    went away is connected again by the provider, without being asked.
    """

    def start() -> Deferred[None]:
        """
        Connect; fails with L{mpush_tw.errors.Unavailable} when the store cannot be
        reached, in a sentence that names the address.
        """

    def on_restored(listener: Callable[[], None]) -> None:
        """
        Have C{listener()} called, from the reactor, each time the store can be used
        again after it could not: what it held may be lost, and what was to be written
        meanwhile was not.
        """

    def stop() -> Deferred[None]:
        """
        Disconnect. Idempotent.
        """

    def get(key: str) -> Deferred[str | None]:
        """
        Read a text.
        """

    def set(key: str, value: str, ttl_seconds: int = 0) -> Deferred[None]:
        """
        Write a text; it vanishes after C{ttl_seconds} unless that is 0 or less.
        """

    def expire(key: str, ttl_seconds: int) -> Deferred[None]:
        """
        Have a key of any kind vanish after C{ttl_seconds}, 1 or more; a missing one is
        no error.
        """

    def delete(key: str) -> Deferred[None]:
        """
        Remove a key of any kind; a missing one is no error.
        """

    def hget(key: str, field: str) -> Deferred[str | None]:
        """
        Read one field of a hash.
        """

    def hset(key: str, field: str, value: str) -> Deferred[None]:
        """
        Write one field of a hash.
        """

    def hswap(key: str, field: str, value: str) -> Deferred[str | None]:
        """
        Write one field of a hash and give what it held, in one step: of two nodes that
        do so at the same time, one gets the other's value (C-2).
        """

    def hset_if(
        key: str, field: str, expected: str | None, value: str
    ) -> Deferred[bool]:
        """
        Write one field of a hash if it still holds C{expected}, or is still missing
        when that is C{None}, in one step.

        @return: Whether it was written.
        """

    def hdel(key: str, field: str) -> Deferred[None]:
        """
        Remove one field of a hash.
        """

    def hgetall(key: str) -> Deferred[dict[str, str]]:
        """
        Read a whole hash; a missing one is empty.
        """

    def hincrby(key: str, field: str, amount: int) -> Deferred[int]:
        """
        Add to a decimal field, which counts as 0 when missing; gives the sum.
        """

    def zadd(key: str, member: str) -> Deferred[None]:
        """
        Put a member, with score 0, into a sorted set.
        """

    def zrem(key: str, member: str) -> Deferred[None]:
        """
        Take a member out of a sorted set.
        """

    def zcard(key: str) -> Deferred[int]:
        """
        Count the members of a sorted set; 0 when it is missing.
        """

    def zrange(key: str, start: int, end: int) -> Deferred[list[str]]:
        """
        Read members by rank, C{end} included, negative ranks from the end.
        """

    def lpush(key: str, values: Sequence[str]) -> Deferred[None]:
        """
        Put values in front of a list; an empty sequence does nothing.
        """

    def lrange(key: str, start: int, end: int) -> Deferred[list[str]]:
        """
        Read a part of a list, C{end} included, negative positions from the end.
        """


class IMessageQueue(Interface):
    """
    Publish and subscribe between nodes (cluster 6).

    Subscriptions outlive the connection: a provider that had to connect again renews
    them. What was published in between is lost.
    """

    def start() -> Deferred[None]:
        """
        Connect; fails with L{mpush_tw.errors.Unavailable} when the queue cannot be
        reached, in a sentence that names the address.
        """

    def on_restored(listener: Callable[[], None]) -> None:
        """
        Have C{listener()} called, from the reactor, each time the subscriptions have
        been renewed: messages may have been missed.
        """

    def stop() -> Deferred[None]:
        """
        Disconnect. Idempotent.
        """

    def publish(topic: str, text: str) -> Deferred[None]:
        """
        Send a text to all current subscribers of the topic.
        """

    def subscribe(topic: str, receiver: Callable[[str, str], None]) -> Deferred[None]:
        """
        Have C{receiver(topic, text)} called, from the reactor and in order, for
        each text published from now on. One receiver a topic; a second replaces it.
        """

    def unsubscribe(topic: str) -> Deferred[None]:
        """
        End a subscription; none is no error.
        """


class IServiceRegistry(Interface):
    """
    Makes this node's doors known to peers, senders and alloc (cluster 3.6).
    """

    def start() -> Deferred[None]:
        """
        Connect; fails with L{mpush_tw.errors.Unavailable} when the registry cannot be
        reached, in a sentence that names the address. Idempotent.
        """

    def stop() -> Deferred[None]:
        """
        Disconnect; what is still registered vanishes. Idempotent.
        """

    def register(node: ServiceNode) -> Deferred[None]:
        """
        Publish a node for as long as this process runs: when the registry has lost it,
        the provider publishes it again under the same id, until L{deregister}.
        """

    def deregister(node: ServiceNode) -> Deferred[None]:
        """
        Withdraw a node; an unknown one is no error.
        """


class IServiceListener(Interface):
    """
    Hears of changes below one service path.
    """

    def service_added(node: ServiceNode) -> None:
        """
        A node appeared.
        """

    def service_updated(node: ServiceNode) -> None:
        """
        A node's data changed.
        """

    def service_removed(node: ServiceNode) -> None:
        """
        A node vanished; this is its last known data.
        """


class IServiceDiscovery(Interface):
    """
    Finds nodes (cluster 3.7). Started and stopped as L{IServiceRegistry} is; a provider
    of both may be one object.
    """

    def start() -> Deferred[None]:
        """
        Connect, as L{IServiceRegistry.start}.
        """

    def stop() -> Deferred[None]:
        """
        Disconnect. Idempotent.
        """

    def lookup(service: str) -> Deferred[list[ServiceNode]]:
        """
        List the nodes of a service path; what cannot be read there is left out.

        Fails with L{mpush_tw.errors.Unavailable} when the registry cannot be asked.
        """

    def subscribe(service: str, listener: IServiceListener) -> None:
        """
        Tell the listener, from the reactor, of every later change; after an
        interruption, of the differences. Whether nodes that exist are told as added is
        the provider's choice: who needs them subscribes first, then looks them up, and
        tells nodes apart by C{node_id}.
        """

    def unsubscribe(service: str, listener: IServiceListener) -> None:
        """
        Stop telling the listener.
        """


# ------------------------------------------------------------- the doors


class IPeerConnection(Interface):
    """
    A connection as the core sees it, whichever door it came through.
    """

    id = Attribute("Eight lower-case hex digits, unique on the node (server 3.1).")
    peer = Attribute("Remote address as C{ip:port}, for logs.")
    busy = Attribute("Whether more is queued than the high water mark (server 14.9).")
    connected = Attribute("Whether packets can still be written.")

    def answer(session_id: int, message: Answer) -> bool:
        """
        Answer a request with a message of L{mpush_tw.protocol.messages};
        C{False} when the connection is gone.
        """

    def send_push(message_id: int, flags: int, content: bytes) -> bool:
        """
        Write a PUSH; C{False} when the connection is gone.
        """

    def send_kick(user_id: str) -> bool:
        """
        Write a KICK that names this connection's device; C{False} when it is gone.
        """

    def close(reason: str) -> None:
        """
        Close when everything written so far has gone out.
        """

    def abort(reason: str) -> None:
        """
        Close at once; the peer may never drain what is queued.
        """
