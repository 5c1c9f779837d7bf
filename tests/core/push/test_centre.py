"""
Tests for L{mpush_tw.core.push.centre}: every way a push can end (server 14.2, 14.3).
"""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.push import centre as centre_module
from mpush_tw.core.push.message_ids import FIRST_MESSAGE_ID, LAST_MESSAGE_ID
from mpush_tw.core.push.request import Outcome, PushRequest
from tests.core.fakes import Core, FakeConnection, FakeListener, start

_BIZ_ACK = 4
_AUTO_ACK = 8


class CentreTestCase(SynchronousTestCase):
    """
    A push centre with the routes of one node.
    """

    limit = 5000
    maximum = 0

    def setUp(self) -> None:
        self.core = Core(limit=self.limit, maximum=self.maximum)
        self.centre = self.core.centre
        self.clock = self.core.clock
        self.listener = FakeListener()

    def device(self, user_id: str = "u", os_name: str = "android") -> FakeConnection:
        """
        Bind a user on a new connection.
        """
        connection = FakeConnection(f"{user_id}-{os_name}", os_name)
        binding = start(self.core.router.bind(connection, user_id, None))
        self.assertTrue(self.successResultOf(binding))
        return connection

    def push(
        self,
        user_id: str | None = "u",
        client_type: int = 1,
        timeout_ms: int = 5000,
        content: bytes | None = b"hello",
        flags: int = 0,
    ) -> PushRequest:
        """
        Push something.
        """
        request = PushRequest(
            user_id,
            client_type,
            timeout_ms,
            content,
            None,
            None,
            None,
            flags,
            self.listener,
        )
        self.centre.push(request)
        return request

    def lose(self, connection: FakeConnection) -> None:
        """
        Have a connection end, and the centre hear of it.
        """
        connection.ended = "peer"
        self.centre.connection_lost(connection)

    def assertOutcomes(self, *outcomes: Outcome) -> None:
        """
        These and no others have been reported, in this order.
        """
        self.assertEqual(self.listener.outcomes, list(outcomes))

    def set_remote(self, connection_id: str | None, here: bool) -> None:
        """
        Put a route of user C{u} into the shared store.
        """
        node = self.core.here if here else self.core.elsewhere
        route = self.core.route(node, connection_id)
        self.successResultOf(start(self.core.remote.register("u", 1, route)))

    def remote_connection(self) -> str | None:
        """
        The connection that the shared store names for user C{u}.
        """
        route = self.successResultOf(start(self.core.remote.find("u", 1)))
        assert route is not None
        return route.connection_id


class PushTests(CentreTestCase):
    """
    Pushes without acknowledgement.
    """

    def test_delivered(self) -> None:
        """
        A push to a bound device reaches it and ends as success.
        """
        device = self.device()
        self.push(content=b"news")
        self.assertEqual(device.contents, [b"news"])
        self.assertOutcomes(Outcome.SUCCESS)

    def test_time_line(self) -> None:
        """
        The listener learns when each milestone was reached, in Unix milliseconds.
        """
        self.clock.advance(1.5)
        self.device()
        self.push()
        self.assertEqual(
            self.listener.finished[0][2],
            [
                ("push-center-begin", 1500),
                ("before-send", 1500),
                ("success-end", 1500),
            ],
        )

    def test_no_ack_flags(self) -> None:
        """
        A push without acknowledgement carries no flags to the device.
        """
        device = self.device()
        self.push()
        self.assertEqual(device.sent, [("push", FIRST_MESSAGE_ID, 0, b"hello")])

    def test_no_content(self) -> None:
        """
        A push without content fails: a device must never get an empty one.
        """
        device = self.device()
        self.push(content=None)
        self.push(content=b"")
        self.assertOutcomes(Outcome.FAILURE, Outcome.FAILURE)
        self.assertEqual(device.sent, [])

    def test_broadcast_ends(self) -> None:
        """
        A broadcast to nobody ends, exactly once.
        """
        self.push(user_id=None, client_type=0)
        self.clock.advance(60)
        self.assertEqual(len(self.listener.finished), 1)

    def test_unknown_user(self) -> None:
        """
        A user that nobody knows is offline.
        """
        self.push()
        self.assertOutcomes(Outcome.OFFLINE)
        self.assertEqual(self.listener.finished[0][2][-1][0], "offline-end")

    def test_other_client_type(self) -> None:
        """
        A push to a type that the user has no device of does not reach the others.
        """
        device = self.device(os_name="windows")
        self.push(client_type=1)
        self.assertOutcomes(Outcome.OFFLINE)
        self.assertEqual(device.sent, [])

    def test_gone_offline(self) -> None:
        """
        A user whose route says offline is offline.
        """
        self.set_remote(None, here=False)
        self.push()
        self.assertOutcomes(Outcome.OFFLINE)

    def test_on_another_node(self) -> None:
        """
        A user who is on another node is reported as moved.
        """
        self.set_remote("0badcafe", here=False)
        self.push()
        self.assertOutcomes(Outcome.REDIRECT)
        self.assertEqual(self.remote_connection(), "0badcafe")

    def test_same_host_other_port(self) -> None:
        """
        Another port on this host is another node.
        """
        self.set_remote("0badcafe", here=True)
        self.core.here.port = 3005
        self.push()
        self.assertOutcomes(Outcome.REDIRECT)

    def test_stale_route(self) -> None:
        """
        A user whom the store places here but who is not is offline, and the store is
        set right.
        """
        self.set_remote("0badcafe", here=True)
        self.push()
        self.assertOutcomes(Outcome.OFFLINE)
        self.assertIsNone(self.remote_connection())

    def test_bound_while_the_store_was_asked(self) -> None:
        """
        A device that binds while a push asks for its stale route stays online.
        """
        self.set_remote("0badcafe", here=True)
        self.core.cache.slow = True
        self.push()
        asked, self.core.cache.held = self.core.cache.held, []
        self.core.cache.slow = False
        device = self.device()
        self.core.cache.held = asked
        self.core.cache.release()
        self.assertOutcomes(Outcome.OFFLINE)
        self.assertEqual(self.remote_connection(), device.id)

    def test_bound_just_before_the_store_answered(self) -> None:
        """
        So does one whose new route the store already names in its answer.
        """
        hget = self.core.cache.hget
        devices: list[FakeConnection] = []

        def bind_first(key: str, field: str) -> Deferred[str | None]:
            patch.restore()
            devices.append(self.device())
            return hget(key, field)

        patch = self.patch(self.core.cache, "hget", bind_first)
        self.push()
        self.assertEqual(self.remote_connection(), devices[0].id)

    def test_dead_connection(self) -> None:
        """
        A local route to a connection that has ended is removed, and the user offline.
        """
        device = self.device()
        device.ended = "peer"
        self.push()
        self.assertOutcomes(Outcome.OFFLINE)
        self.assertEqual(self.core.local.lookup_all("u"), ())
        self.assertIsNone(self.remote_connection())

    def test_dead_connection_moved(self) -> None:
        """
        If that user has meanwhile come up on another node, the push is redirected.
        """
        device = self.device()
        device.ended = "peer"
        self.set_remote("0badcafe", here=False)
        self.push()
        self.assertOutcomes(Outcome.REDIRECT)

    def test_busy(self) -> None:
        """
        A device that does not take what it was sent fails at once.
        """
        device = self.device()
        device.full = True
        self.push()
        self.assertOutcomes(Outcome.FAILURE)
        self.assertEqual(device.sent, [])

    def test_write_failed(self) -> None:
        """
        A packet that could not be written is a failure.
        """
        self.device().broken = True
        self.push()
        self.assertOutcomes(Outcome.FAILURE)

    def test_written_too_late(self) -> None:
        """
        A write that ends after the time-out of the request is a time-out.
        """
        self.device().on_push = lambda _: self.clock.advance(2)
        self.push(timeout_ms=1000)
        self.assertOutcomes(Outcome.TIMEOUT)

    def test_store_is_down(self) -> None:
        """
        When the store cannot be asked the push fails, and says so at once (S-16).
        """
        self.core.cache.down = True
        self.push()
        self.assertOutcomes(Outcome.FAILURE)

    def test_store_goes_down_in_between(self) -> None:
        """
        A stale route that cannot be set right does not end the push a second time.
        """
        self.set_remote("0badcafe", here=True)
        self.core.cache.fails.add("hset")
        self.push()
        self.assertOutcomes(Outcome.OFFLINE)

    def test_local_push_does_not_need_the_store(self) -> None:
        """
        A device of this node is reached although the store is down.
        """
        device = self.device()
        self.core.cache.down = True
        self.push()
        self.assertOutcomes(Outcome.SUCCESS)
        self.assertEqual(device.contents, [b"hello"])

    def test_counted(self) -> None:
        """
        Pushes are counted by how they ended.
        """
        self.device()
        self.push()
        self.push()
        self.push(user_id="nobody")
        self.assertEqual(self.core.metrics.pushes_new, 3)
        self.assertEqual(self.core.metrics.push_results, {"success": 2, "offline": 1})


class MessageIdTests(CentreTestCase):
    """
    The numbers that pushes carry (server 7.3, DESIGN 5c).
    """

    def test_each_its_own(self) -> None:
        """
        Numbers count up from 2^30.
        """
        device = self.device()
        self.push()
        self.push()
        self.assertEqual([item[1] for item in device.sent], [1 << 30, (1 << 30) + 1])

    def test_wrap(self) -> None:
        """
        The largest number a client can acknowledge is followed by 2^30 again.
        """
        self.core.ids._last = LAST_MESSAGE_ID - 1
        given = [self.centre.next_message_id() for _ in range(3)]
        self.assertEqual(given, [(1 << 31) - 1, 1 << 30, (1 << 30) + 1])


class AckTests(CentreTestCase):
    """
    Pushes that the device has to acknowledge.
    """

    def test_acknowledged(self) -> None:
        """
        A push that wants an acknowledgement ends when it has come, not before.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.assertOutcomes()
        self.clock.advance(0.25)
        self.centre.acknowledged(device, device.sent[0][1])
        self.assertOutcomes(Outcome.ACK_SUCCESS)
        self.assertEqual(
            self.listener.finished[0][2],
            [
                ("push-center-begin", 0),
                ("before-send", 0),
                ("waiting-ack", 0),
                ("success-end", 250),
            ],
        )

    def test_flags(self) -> None:
        """
        The device is told which kind of acknowledgement is wanted.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.push(flags=_BIZ_ACK)
        self.assertEqual([item[2] for item in device.sent], [_AUTO_ACK, _BIZ_ACK])

    def test_no_acknowledgement(self) -> None:
        """
        Without one the push times out when the request says so.
        """
        self.device()
        self.push(flags=_AUTO_ACK, timeout_ms=2000)
        self.clock.advance(1.99)
        self.assertOutcomes()
        self.clock.advance(0.05)
        self.assertOutcomes(Outcome.TIMEOUT)
        self.assertEqual(self.listener.finished[0][2][-1][0], "timeout-end")

    def test_late(self) -> None:
        """
        An acknowledgement after the time-out changes nothing and is counted.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK, timeout_ms=2000)
        self.clock.advance(3)
        self.centre.acknowledged(device, device.sent[0][1])
        self.assertOutcomes(Outcome.TIMEOUT)
        self.assertEqual(self.core.metrics.late_acks, 1)

    def test_twice(self) -> None:
        """
        A second acknowledgement of the same push changes nothing.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.centre.acknowledged(device, device.sent[0][1])
        self.centre.acknowledged(device, device.sent[0][1])
        self.clock.advance(60)
        self.assertOutcomes(Outcome.ACK_SUCCESS)

    def test_by_somebody_else(self) -> None:
        """
        Nobody can acknowledge what was sent to another connection (S-13).
        """
        device, other = self.device(), self.device("v")
        self.push(flags=_AUTO_ACK)
        self.centre.acknowledged(other, device.sent[0][1])
        self.assertOutcomes()
        self.centre.acknowledged(device, device.sent[0][1])
        self.assertOutcomes(Outcome.ACK_SUCCESS)

    def test_wrong_number(self) -> None:
        """
        An acknowledgement of another number is not one of this push.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.centre.acknowledged(device, device.sent[0][1] + 1)
        self.assertOutcomes()

    def test_at_once(self) -> None:
        """
        A device that acknowledges while the packet is being written is heard.
        """
        device = self.device()
        device.on_push = lambda number: self.centre.acknowledged(device, number)
        self.push(flags=_AUTO_ACK)
        self.clock.advance(60)
        self.assertOutcomes(Outcome.ACK_SUCCESS)
        self.assertEqual(self.centre.acks.waiting, 0)

    def test_out_of_order(self) -> None:
        """
        Pushes to one device end in the order in which it acknowledges them.
        """
        device = self.device()
        first = self.push(flags=_AUTO_ACK)
        second = self.push(flags=_AUTO_ACK)
        for item in reversed(device.sent):
            self.centre.acknowledged(device, item[1])
        ended = [request for request, _, _ in self.listener.finished]
        self.assertEqual(ended, [second, first])

    def test_connection_lost(self) -> None:
        """
        When the connection ends first, the push fails at once, and only once (S-13).
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.push(flags=_BIZ_ACK)
        self.lose(device)
        self.clock.advance(60)
        self.assertOutcomes(Outcome.FAILURE, Outcome.FAILURE)

    def test_connection_lost_later(self) -> None:
        """
        A connection that ends after the acknowledgement changes nothing.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.centre.acknowledged(device, device.sent[0][1])
        self.lose(device)
        self.assertOutcomes(Outcome.ACK_SUCCESS)

    def test_write_failed(self) -> None:
        """
        A push that could not be written is not waited for.
        """
        self.device().broken = True
        self.push(flags=_AUTO_ACK)
        self.assertOutcomes(Outcome.FAILURE)
        self.assertEqual(self.centre.acks.waiting, 0)
        names = [name for name, _ in self.listener.finished[0][2]]
        self.assertNotIn("waiting-ack", names)

    def test_without_time_out(self) -> None:
        """
        A request without a time-out waits three seconds (server 14.2).
        """
        self.device()
        self.push(flags=_AUTO_ACK, timeout_ms=0)
        self.clock.advance(2.99)
        self.assertOutcomes()
        self.clock.advance(0.05)
        self.assertOutcomes(Outcome.TIMEOUT)

    def test_endless_time_out(self) -> None:
        """
        No push is remembered for longer than ten minutes, whatever its sender asks for.
        """
        self.device()
        self.push(flags=_AUTO_ACK, timeout_ms=0x7FFFFFFF)
        self.clock.advance(599.9)
        self.assertOutcomes()
        self.clock.advance(0.2)
        self.assertOutcomes(Outcome.TIMEOUT)
        self.assertEqual(len(self.core.wheel), 0)

    def test_content_is_let_go(self) -> None:
        """
        While a push waits for its acknowledgement its content is not kept.
        """
        self.device()
        request = self.push(flags=_AUTO_ACK)
        self.assertIsNone(request.content)

    def test_duration_is_observed(self) -> None:
        """
        How long devices take to acknowledge is measured.
        """
        device = self.device()
        self.push(flags=_AUTO_ACK)
        self.clock.advance(0.5)
        self.centre.acknowledged(device, device.sent[0][1])
        self.assertEqual(self.core.metrics.ack_seconds.total, 0.5)


class AllTypesTests(CentreTestCase):
    """
    Client type 0: all devices of a user on this node (DESIGN 5c).
    """

    def push_all(self, flags: int = 0) -> PushRequest:
        """
        Push to all devices of C{u}.
        """
        return self.push(client_type=0, flags=flags)

    def test_nobody(self) -> None:
        """
        A user without devices here is offline.
        """
        self.push_all()
        self.assertOutcomes(Outcome.OFFLINE)

    def test_one_device(self) -> None:
        """
        The only device is reached whatever its type.
        """
        device = self.device(os_name="windows")
        self.push_all()
        self.assertEqual(device.contents, [b"hello"])
        self.assertOutcomes(Outcome.SUCCESS)

    def test_two_devices(self) -> None:
        """
        Both devices are reached, and one outcome is reported for the request itself.
        """
        phone, desk = self.device(), self.device(os_name="windows")
        request = self.push_all()
        self.assertEqual(phone.contents + desk.contents, [b"hello", b"hello"])
        self.assertEqual(
            [(item[0], item[1]) for item in self.listener.finished],
            [(request, Outcome.SUCCESS)],
        )

    def test_one_of_two(self) -> None:
        """
        It is a success if one of them was reached.
        """
        self.device().full = True
        desk = self.device(os_name="windows")
        self.push_all()
        self.assertEqual(desk.contents, [b"hello"])
        self.assertOutcomes(Outcome.SUCCESS)

    def test_none_of_two(self) -> None:
        """
        It is a failure if both are too busy.
        """
        self.device().full = True
        self.device(os_name="windows").full = True
        self.push_all()
        self.assertOutcomes(Outcome.FAILURE)

    def test_all_gone(self) -> None:
        """
        It is offline if both have gone.
        """
        self.device().ended = "peer"
        self.device(os_name="windows").ended = "peer"
        self.push_all()
        self.assertOutcomes(Outcome.OFFLINE)

    def test_gone_and_busy(self) -> None:
        """
        A failure outweighs a device that is offline.
        """
        self.device().full = True
        self.device(os_name="windows").ended = "peer"
        self.push_all()
        self.assertOutcomes(Outcome.FAILURE)

    def test_first_acknowledgement_decides(self) -> None:
        """
        With acknowledgements the first one ends the push; the second adds nothing.
        """
        phone, desk = self.device(), self.device(os_name="windows")
        self.push_all(_AUTO_ACK)
        self.assertOutcomes()
        self.centre.acknowledged(desk, desk.sent[0][1])
        self.assertOutcomes(Outcome.ACK_SUCCESS)
        self.centre.acknowledged(phone, phone.sent[0][1])
        self.clock.advance(60)
        self.assertOutcomes(Outcome.ACK_SUCCESS)

    def test_no_acknowledgement(self) -> None:
        """
        Without any it times out, once.
        """
        self.device()
        self.device(os_name="windows")
        self.push_all(_AUTO_ACK)
        self.clock.advance(60)
        self.assertOutcomes(Outcome.TIMEOUT)

    def test_lost_and_silent(self) -> None:
        """
        A lost connection alone does not end it while another may still acknowledge.
        """
        phone, desk = self.device(), self.device(os_name="windows")
        self.push_all(_AUTO_ACK)
        self.lose(phone)
        self.assertOutcomes()
        self.centre.acknowledged(desk, desk.sent[0][1])
        self.assertOutcomes(Outcome.ACK_SUCCESS)

    def test_each_device_acknowledges_its_own(self) -> None:
        """
        The devices get different numbers.
        """
        phone, desk = self.device(), self.device(os_name="windows")
        self.push_all(_AUTO_ACK)
        self.assertNotEqual(phone.sent[0][1], desk.sent[0][1])

    def test_counted_once(self) -> None:
        """
        A push to three devices is one push in the metrics, with one result and one
        duration, that of its last device.
        """
        devices = [self.device(os_name=name) for name in ("android", "windows", "web")]
        self.assertEqual(len(self.core.local.lookup_all("u")), 3)
        self.push_all(flags=_AUTO_ACK)
        metrics = self.core.metrics
        for device in devices:
            self.assertEqual(metrics.push_results, {})
            self.clock.advance(0.5)
            self.lose(device)
        self.assertEqual(metrics.pushes_new, 1)
        self.assertEqual(metrics.push_results, {"failure": 1})
        self.assertEqual(sum(metrics.push_seconds.counts), 1)
        self.assertEqual(metrics.push_seconds.total, 1.5)

    def test_one_device_is_counted_once(self) -> None:
        """
        So is one to the only device.
        """
        self.device()
        self.push_all()
        self.assertEqual(self.core.metrics.push_results, {"success": 1})
        self.assertEqual(sum(self.core.metrics.push_seconds.counts), 1)


class FlowControlTests(CentreTestCase):
    """
    Pushes beyond what a window of time allows (server 14.6).
    """

    limit = 3

    def fill(self) -> None:
        """
        Use this window up.
        """
        self.device("filler")
        for _ in range(self.limit - 1):
            self.push("filler")
        self.listener.finished.clear()

    def test_waits(self) -> None:
        """
        A push beyond the window waits, and goes out in the next one.
        """
        self.fill()
        device = self.device()
        self.push()
        self.assertEqual(device.sent, [])
        self.assertOutcomes()
        self.assertEqual(self.centre.delayed, 1)
        self.clock.advance(1.01)
        self.assertEqual(device.contents, [b"hello"])
        self.assertOutcomes(Outcome.SUCCESS)
        self.assertEqual(self.centre.delayed, 0)

    def test_order(self) -> None:
        """
        Waiting pushes keep their order over as many windows as they need.
        """
        self.fill()
        device = self.device()
        contents = [str(number).encode() for number in range(10)]
        for content in contents:
            self.push(content=content, timeout_ms=60000)
        for _ in range(8):
            self.clock.advance(1.01)
        self.assertEqual(device.contents, contents)
        self.assertOutcomes(*[Outcome.SUCCESS] * 10)

    def test_limit(self) -> None:
        """
        No window lets more than its limit through.
        """
        self.fill()
        device = self.device()
        for _ in range(10):
            self.push(timeout_ms=60000)
        self.clock.advance(1.01)
        self.assertEqual(len(device.sent), self.limit)

    def test_too_late(self) -> None:
        """
        A push whose time-out passes while it waits is not sent any more.
        """
        self.fill()
        device = self.device()
        self.push(timeout_ms=500)
        self.clock.advance(1.01)
        self.assertEqual(device.sent, [])
        self.assertOutcomes(Outcome.TIMEOUT)

    def test_gone_meanwhile(self) -> None:
        """
        A device that leaves while its push waits is offline.
        """
        self.fill()
        device = self.device()
        self.push()
        self.successResultOf(start(self.core.router.unbind(device)))
        self.clock.advance(1.01)
        self.assertOutcomes(Outcome.OFFLINE)

    def test_waiting_shortens_the_ack_time(self) -> None:
        """
        The time that a push has waited counts against its time-out.
        """
        self.fill()
        device = self.device()
        self.push(flags=_AUTO_ACK, timeout_ms=3000)
        self.clock.advance(1.01)
        self.assertEqual(len(device.sent), 1)
        self.clock.advance(1.9)
        self.assertOutcomes()
        self.clock.advance(0.15)
        self.assertOutcomes(Outcome.TIMEOUT)

    def test_all_types(self) -> None:
        """
        A push to all types that had to wait reaches the device.
        """
        self.fill()
        device = self.device(os_name="windows")
        self.push(client_type=0)
        self.clock.advance(1.01)
        self.assertEqual(device.contents, [b"hello"])
        self.assertOutcomes(Outcome.SUCCESS)

    def test_offline_does_not_count(self) -> None:
        """
        Pushes to users who are not here use nothing of the window.
        """
        for _ in range(10):
            self.push("nobody")
        device = self.device()
        self.push()
        self.assertEqual(len(device.sent), 1)

    def test_bounded(self) -> None:
        """
        What waits is bounded: pushes beyond the bound fail at once.
        """
        self.patch(centre_module, "_MAX_DELAYED", 2)
        self.fill()
        self.device()
        for _ in range(3):
            self.push()
        self.assertOutcomes(Outcome.FAILURE)
        self.assertEqual(self.centre.delayed, 2)

    def test_bounded_by_size(self) -> None:
        """
        So are the bytes that wait: a content beyond them fails at once, a smaller one
        that fits still waits.
        """
        self.patch(centre_module, "_MAX_DELAYED_BYTES", 100)
        self.fill()
        self.device()
        self.push(content=b"x" * 60)
        large = self.push(content=b"x" * 41)
        self.assertEqual(
            [(item[0], item[1]) for item in self.listener.finished],
            [(large, Outcome.FAILURE)],
        )
        self.push(content=b"x" * 40)
        self.assertEqual(self.centre.delayed, 2)

    def test_size_of_what_has_gone_out(self) -> None:
        """
        Bytes that have gone out make room, those that wait on do not.
        """
        self.patch(centre_module, "_MAX_DELAYED_BYTES", 100)
        self.fill()
        device = self.device()
        for _ in range(5):
            self.push(content=b"x" * 20, timeout_ms=60000)
        self.clock.advance(1.01)
        self.assertEqual(len(device.sent), self.limit)
        self.assertEqual(self.centre.delayed, 2)
        self.push(content=b"x" * 60, timeout_ms=60000)
        self.assertOutcomes(*[Outcome.SUCCESS] * 3)
        self.push(content=b"x", timeout_ms=60000)
        self.assertOutcomes(*[Outcome.SUCCESS] * 3, Outcome.FAILURE)
        for _ in range(2):
            self.clock.advance(1.01)
        self.assertEqual(self.centre.delayed, 0)
        self.push(content=b"x" * 20, timeout_ms=60000)
        self.assertEqual(len(device.sent) + self.centre.delayed, 7)

    def test_stop(self) -> None:
        """
        When the node stops, what waits ends as failure and the clock is left alone.
        """
        self.fill()
        self.device()
        self.push()
        self.push()
        self.centre.stop()
        self.assertOutcomes(Outcome.FAILURE, Outcome.FAILURE)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OverMaximumTests(CentreTestCase):
    """
    A total that is used up.
    """

    limit = 2
    maximum = 2

    def test_refused(self) -> None:
        """
        Beyond the maximum a push ends as failure instead of not at all (S-16).
        """
        device = self.device()
        for _ in range(8):
            self.push(timeout_ms=60000)
            self.clock.advance(1.01)
        delivered = len(device.sent)
        self.assertEqual(
            self.listener.outcomes,
            [Outcome.SUCCESS] * delivered + [Outcome.FAILURE] * (8 - delivered),
        )
        self.assertGreaterEqual(delivered, self.maximum)
        self.assertLess(delivered, 8)


class ExactlyOnceTests(CentreTestCase):
    """
    The promise that every request ends exactly once.
    """

    limit = 8

    def test_whatever_happens(self) -> None:
        """
        With devices that acknowledge, keep silent, choke, leave and move at random,
        each push ends exactly once.
        """
        for seed in range(20):
            self.setUp()
            self.exercise(random.Random(seed))

    def exercise(self, source: random.Random) -> None:
        systems = ("android", "windows", "web", "toaster")
        devices = [
            self.device(f"u{number % 5}", systems[number % 4]) for number in range(20)
        ]
        cache = self.core.cache
        requests = []
        for _ in range(150):
            step = source.random()
            device = source.choice(devices)
            if step < 0.6:
                requests.append(
                    self.push(
                        f"u{source.randrange(7)}",
                        source.choice((0, 1, 1, 2, 3, -1)),
                        source.choice((-5, 0, 500, 2000, 5000)),
                        source.choice((b"text", b"text", b"text", b"")),
                        source.choice((0, _BIZ_ACK, _AUTO_ACK)),
                    )
                )
            elif step < 0.75:
                for number in list(device.acks or ()):
                    self.centre.acknowledged(device, number)
            elif step < 0.8:
                device.full = not device.full
            elif step < 0.83:
                device.broken = not device.broken
            elif step < 0.86:
                self.lose(device)
            elif step < 0.89:
                cache.down = not cache.down
            elif step < 0.92 and not cache.held:
                cache.slow = True
            elif step < 0.95:
                cache.release()
            else:
                self.clock.advance(source.choice((0.01, 0.5, 1.1)))
        cache.down = False
        cache.release()
        for _ in range(200):
            self.clock.advance(1.01)
        ended = [request for request, _, _ in self.listener.finished]
        self.assertEqual(len(ended), len(requests))
        self.assertEqual(set(map(id, ended)), set(map(id, requests)))
        self.assertEqual(self.centre.acks.waiting, 0)
        self.assertEqual(self.centre.delayed, 0)
        self.assertEqual(len(self.core.wheel), 0)
