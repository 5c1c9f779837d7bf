"""
Every zope interface of the server, grouped by room: the page an extender reads.

An interface is a contract: who calls a method and when, whether it may wait, what it
may raise, and what a right answer guarantees. Methods that may wait return a Deferred;
where a plain value is allowed as well the annotation says so, and the server waits for
either. A method of an extension may also be an C{async def}. Every wait on a provider
is bounded by the server.

How a provider gets into a node: L{IExtension}, C{docs/plugins.md}.

Order of events, fixed for all listeners (server 13, DESIGN 5.13):

  1. L{ServerStarted}, when every door is open and registered;
  2. for a connection: L{ConnectionOpened} first; L{UserOnline} after the routes are
     written and the context is set, before OK reaches the device; what a BIND brings
     about for others comes before the L{UserOnline} that caused it, L{RouteChanged}
     first and then the L{UserKicked} of the connection that was displaced here;
     L{UserOffline} after the routes are gone; L{ConnectionClosed} last;
  3. L{ServerStopping}, before anything is deregistered or closed. What the stop itself
     brings about, the users' going offline and the end of their connections, follows.

Events are delivered in the order they were posted, after the handler that posted them
has returned; a listener that raises or never answers harms nobody, see
L{IServerEventListener}.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from mpush_tw.core.connection import Answer
    from mpush_tw.core.push.request import Outcome, PushRequest
    from mpush_tw.protocol.gateway import TimePoints

_T = TypeVar("_T")
_Coroutine = Coroutine[Any, Any, _T]


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


@attrs.frozen
class PoolStatistics:
    """
    What a pool of threads does, and has done so far (server 19.2, ExecutorFactory).

    @ivar threads: Threads that exist.
    @ivar running: Calls under way.
    @ivar waiting: Calls that wait for a thread.
    @ivar done: Calls that ended, by result or exception.
    @ivar refused: Calls that were not taken because too many waited.
    """

    threads: int
    running: int
    waiting: int
    done: int
    refused: int


@attrs.frozen
class DnsTarget:
    """
    Where requests for a host name go instead (server 15.4).

    @ivar host: An address, or a name that this machine resolves.
    """

    host: str
    port: int


@attrs.frozen
class HttpTarget:
    """
    Whom an HTTP request goes to.

    @ivar scheme: C{http} or C{https}.
    @ivar host: The name or address that was asked for: the certificate of an https
        target must be for it. Not looked up.
    @ivar port: Where to connect.
    @ivar addresses: IP addresses to connect to, the first that can be reached; at least
        one.
    """

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


@attrs.frozen
class HttpFetch:
    """
    An HTTP request as it is to be sent (server 15.2).

    @ivar uri: The request target, in ASCII.
    @ivar headers: In order, C{Host} among them; nothing that says how long the body is
        or what becomes of the connection.
    @ivar body: Empty for none.
    """

    target: HttpTarget
    method: str
    uri: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""


@attrs.frozen
class HttpFetched:
    """
    An HTTP response that has arrived completely.

    @ivar status: 100 to 999.
    @ivar headers: As received, names in their own case; nothing that concerned the
        connection or the length of the body.
    @ivar body: As received, compressed or not; chunks joined.
    """

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


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
    Hears what happens on a node (server 13, 19.2). C{server-event-listener}; there is
    no built-in one. All that are installed hear, unless the settings name one.
    """

    def event_occurred(event: Event) -> Deferred[None] | _Coroutine[None] | None:
        """
        Take note of one event.

        Called in posting order, from the reactor, never inside a packet handler. A
        Deferred is not waited for before the next event is delivered. It is given 30
        seconds, and a listener that has 1,000 of them open misses events until some
        have fired. What raises, fails, takes too long or is missed is logged and
        counted (C{mpush_event_errors_total}).
        """


class IEvents(Interface):
    """
    The events of one node, for whoever wants to hear them without being its
    C{server-event-listener}.
    """

    def subscribe(listener: Callable[[Event], Deferred[None] | None]) -> None:
        """
        Have C{listener(event)} called for every event from now on, as
        L{IServerEventListener.event_occurred} is.
        """


# -------------------------------------------------------- the core, extensible


class IBindValidator(Interface):
    """
    Decides who may be bound (server 8.4, 19.2). C{bind-validator}; the default,
    C{accept-all}, says yes.
    """

    def validate(
        user_id: str, data: str | None
    ) -> bool | Deferred[bool] | _Coroutine[bool]:
        """
        Decide whether the connection that sent this BIND may be bound.

        The server waits for the answer before it handles the next packet of the same
        connection, for ten seconds at most. An exception or a time-out ends in ERROR
        100 and close, and anything but C{True} in ERROR and close.

        @param user_id: Never empty.
        @param data: Free text of the BIND, for instance a token.
        """


class IClientClassifier(Interface):
    """
    Sorts devices into client types: one connection of a user per type (server 11.1).
    C{client-classifier}; the default, C{os-name}, goes by the name's beginning.

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
    C{push-handler}; the default, C{drop}, keeps none.
    """

    def message_received(
        message: UpstreamMessage,
    ) -> Deferred[None] | _Coroutine[None] | None:
        """
        Take one message.

        With C{AUTO_ACK} in the flags the server acknowledges when this returned without
        raising, or when its Deferred fired; an error means no acknowledgement, and
        is logged: with a traceback, unless it is L{mpush_tw.errors.Unavailable}. The
        next packet of that connection waits, ten seconds at most.
        """


class IPushListener(Interface):
    """
    Learns how pushes ended: the answering side of a push source (server 14.4, 19.2).
    C{push-listener}; the default, C{gateway}, answers the senders.

    One that is installed may be a source of pushes itself: it begins to take them in
    when L{ServerStarted} is heard, hands them to L{IExtensionContext.push} and ends at
    L{ServerStopping}. It is told of those of the gateway's senders as well, after they
    have been answered; the gateway stays open (C{mp.net.gateway-allowed-peers} set to
    an empty list shuts everybody out).
    """

    def push_finished(
        request: PushRequest, outcome: Outcome, points: TimePoints
    ) -> None:
        """
        Called exactly once for each accepted request; must not wait. An exception is
        logged.

        @param request: C{request.origin} tells a source its own from others.
        @param points: Milestones of this push on this node.
        """


class IExecutor(Interface):
    """
    Runs what blocks, in threads, so that the reactor does not (server 19.2).
    C{executor}; the default, C{threads}, has the pools of C{mp.thread.pool}.
    """

    def run_blocking(
        pool: str, function: Callable[..., _T], *args: object
    ) -> Deferred[_T]:
        """
        Call C{function(*args)} in a thread.

        @param pool: One of the original's names: C{push-client}, C{push-task},
            C{ack-timer}, C{event-bus}, C{mq}.
        @return: A Deferred firing, in the reactor's thread, with the result. It fails
            with L{mpush_tw.errors.Unavailable} at once if too many calls wait, or the
            executor has been stopped.
        @raise ValueError: If there is no such pool.
        """

    def statistics() -> Mapping[str, PoolStatistics]:
        """
        Tell what each pool does, by name.
        """

    def stop() -> Deferred[None]:
        """
        Take no more calls; fires when those under way have ended, or after five
        seconds. Idempotent.
        """


class IHandshakeCipher(Interface):
    """
    Opens what devices send before they have a session key (server 19.3, protocol 6).
    C{rsa-cipher}; the default, C{rsa}, is the configured key pair. A node whose
    settings name another needs no key of its own.

    Called for each HANDSHAKE, inside the packet's handling: it must not wait.
    """

    def decrypt(sealed: bytes) -> bytes:
        """
        Open a body.

        @raise mpush_tw.errors.ProtocolError: If it cannot be opened; with the same text
            and in the same time whatever the cause (DESIGN 5.6).
        """

    def encrypt(plain: bytes) -> bytes:
        """
        Seal an answer that is given before the handshake.
        """


class IJsonCodec(Interface):
    """
    Writes and reads the JSON of WebSocket frames (server 19.3). C{json}; the default is
    C{msgspec}. Used by the WebSocket door.
    """

    def encode(value: object) -> bytes:
        """
        Write a value made of dicts with text keys, lists, texts, numbers, truth values
        and C{None}: UTF-8, no blanks between members, their order kept.
        """

    def decode(text: bytes) -> object:
        """
        Read a value.

        @raise ValueError: If it is not JSON.
        """


class IDnsMapping(Interface):
    """
    Says where requests to a host name really go (server 15.4, 19.3). C{dns-mapping};
    the default, C{configured}, goes by C{mp.http.dns-mapping}. Used by the HTTP proxy.
    """

    def lookup(host: str) -> DnsTarget | None:
        """
        Choose a target for one request; must not wait.

        @param host: Of the URL, in lower case, without its port.
        @return: C{None} if the name is not mapped.
        """


class IHttpFetcher(Interface):
    """
    Speaks HTTP with web servers on behalf of devices (server 15). Used by the HTTP
    proxy, which has decided before that the target may be asked. Follows no redirect,
    keeps no cookie, changes nothing about the body.
    """

    def fetch(request: HttpFetch) -> Deferred[HttpFetched]:
        """
        Ask once.

        A connection is used again only if the response before was complete and nothing
        came behind it, so that no answer can reach another request (S-32).

        @return: Fails with L{mpush_tw.errors.FetchError}. Cancelling it ends the
            request and its connection. The caller bounds the time, but not that of
            connecting.
        """

    def idle_connections() -> Mapping[str, int]:
        """
        Tell how many connections are kept for later, by C{host:port}.
        """

    def stop() -> Deferred[None]:
        """
        Close the connections that are kept; fires within a few seconds. Idempotent.
        """


# ------------------------------------------------------------------- storage


class ICache(Interface):
    """
    The shared store: what the original keeps in Redis (cluster 2, server 19.2).
    C{cache-manager}; the defaults are C{memory}, and C{redis} in a cluster.

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
    Publish and subscribe between nodes (cluster 6). C{mq-client}; the defaults are
    C{memory}, and C{redis} in a cluster.

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
    C{service-registry}; the defaults are C{memory}, and C{zookeeper} in a cluster.
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
    of both may be one object. C{service-discovery}; the defaults are those of the
    registry.
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


# ----------------------------------------------------------------- extensions


class IExtension(Interface):
    """
    A plug-in: says what it provides and makes it. L{mpush_tw.extensions.Extension} is
    the one implementation that anybody needs.

    Objects that provide this and L{twisted.plugin.IPlugin}, in a module of
    C{twisted/plugins}, are found by every node when it is made. Which of those for one
    interface is used, the settings say or the order (server 19.1).

    What C{factory} makes may have two methods beside those of its interface. The node
    calls C{init(context)}, with an L{IExtensionContext}, before anything is started,
    and waits for it up to 30 seconds: if that fails the node does not start. It calls
    C{destroy()} when everything has been stopped, the last made first, and waits up to
    five seconds for each.
    """

    provides = Attribute("The interface of what it makes.")
    name = Attribute("Its name for C{mp.spi}: lower-case words with hyphens.")
    order = Attribute(
        "The lowest wins when the settings name none; built-in ones have 1."
    )

    def factory() -> object:
        """
        Make what provides the interface. Called once for each node, when the node is
        made; opens nothing.
        """


class IExtensionContext(Interface):
    """
    What a node gives to each extension's C{init} (server 19.1).
    """

    name = Attribute("The extension's own name.")
    settings = Attribute("The node's L{Settings<mpush_tw.config.Settings>}, frozen.")
    reactor = Attribute("The reactor that the node runs on.")
    address = Attribute(
        """
        Host and port of the gateway: how routes name this node. The port may be 0
        before L{ServerStarted}. C{None} in a sender.
        """
    )
    log = Attribute("A L{twisted.logger.Logger} of the extension's own.")
    cache = Attribute("L{ICache}; usable from L{ServerStarted} on.")
    queue = Attribute("L{IMessageQueue}; usable from L{ServerStarted} on.")
    registry = Attribute("L{IServiceRegistry}; usable from L{ServerStarted} on.")
    discovery = Attribute("L{IServiceDiscovery}; usable from L{ServerStarted} on.")
    events = Attribute("L{IEvents} of the node.")
    metrics = Attribute("L{IExtensionMetrics} of the extension.")

    def setting(path: str, default: object = None) -> object:
        """
        Read any key of the operator's file, the extension's own included: they belong
        below C{mp.spi-settings.NAME}.

        @param path: Dotted, such as C{mp.spi-settings.jwt.url}.
        @return: The value as written (text, number, truth value, list, dict), or
            C{default} where there is none. L{mpush_tw.config.units} reads durations
            and sizes.
        """

    def push(request: PushRequest) -> None:
        """
        Have the push centre push. The request's listener is told exactly once how it
        ended, maybe before this returns.

        @param request: Its content has C{mp.core.max-packet-size} bytes at most.
        @raise mpush_tw.errors.Unavailable: Before L{ServerStarted}, and from
            L{ServerStopping} on.
        @raise mpush_tw.errors.PushError: If the content is too long.
        """

    def run_blocking(function: Callable[..., _T], *args: object) -> Deferred[_T]:
        """
        Call C{function(*args)} in a thread of the pool C{event-bus}; see
        L{IExecutor.run_blocking}.
        """


class IExtensionMetrics(Interface):
    """
    Figures of one extension on the metrics page of its node. Names are shown as
    C{mpush_ext_NAME}: lower-case letters, digits and underscores.
    """

    def counter(
        name: str, text: str, labels: Sequence[str] = ()
    ) -> Callable[..., None]:
        """
        Declare a counter, shown as C{mpush_ext_NAME_total}.

        @param text: What it counts, one sentence.
        @return: A function that adds 1; called with a text for each label. Beyond 100
            different sets of texts, further ones are counted as C{other}.
        @raise ValueError: If the name cannot be used, or is taken.
        """

    def gauge(name: str, text: str, value: Callable[[], float]) -> None:
        """
        Declare a figure that goes up and down.

        @param value: Asked at every look at the page; must not wait.
        @raise ValueError: If the name cannot be used, or is taken.
        """
