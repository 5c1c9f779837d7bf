"""
Lists of users, against gateways in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from mpush_tw.errors import PushError, Unavailable
from mpush_tw.protocol.commands import ErrorCode
from mpush_tw.sender import (
    AggregateResult,
    PushContext,
    PushResult,
    PushSender,
    ResultCode,
    Route,
)
from mpush_tw.sender._batch import LOOK_UPS, TIME_LINES, WINDOW, Batch
from tests.sender.gateway import FakeGateway
from tests.sender.test_push_sender import (
    FIRST,
    ONE,
    SECOND,
    TWO,
    FakeDirectory,
    SenderTestCase,
)

OFFLINE = ResultCode.OFFLINE


def named(count: int) -> list[str]:
    """
    So many users.
    """
    return [f"user-{number}" for number in range(count)]


class ListTestCase(SenderTestCase):
    """
    A sender that asks one gateway for everybody.
    """

    addresses: Any = ONE

    def send_all(
        self, users: Any, progress: Any = None, **settings: Any
    ) -> Deferred[AggregateResult]:
        context = PushContext(**{"content": b"hi", "user_ids": users, **settings})
        return self.sender.send_all(context, progress)

    def batch(self, users: Any, progress: Any = None, **settings: Any) -> Batch:
        context = PushContext(**{"content": b"hi", "user_ids": users, **settings})
        return self.sender.batch(context, progress)

    def turns(self, count: int = 20) -> None:
        """
        Let the reactor make so many turns, in no time.
        """
        self.network.pump([0] * count)


class ResultTests(ListTestCase):
    """
    What comes back.
    """

    def test_one_result_per_user(self) -> None:
        """
        Each user has a result, in the order of the list.
        """
        sent = self.send_all(["c", "a", "b"])
        gateway = self.gateways[0]
        gateway.ok(gateway.asked[2])
        gateway.error(gateway.asked[0], ErrorCode.OFFLINE)
        self.turns()
        self.assertNoResult(sent)
        gateway.ok(gateway.asked[1])
        self.turns()
        aggregate = self.successResultOf(sent)
        self.assertEqual(
            [(one.user_id, one.code) for one in aggregate.results],
            [
                ("c", ResultCode.OFFLINE),
                ("a", ResultCode.SUCCESS),
                ("b", ResultCode.SUCCESS),
            ],
        )
        self.assertEqual(aggregate.unsent, ())
        self.assertFalse(aggregate.succeeded)

    def test_each_once(self) -> None:
        """
        A user named twice gets the message once.
        """
        self.gateways[0].on_asked = FakeGateway.ok
        self.send_all(["a", "b", "a"])
        self.assertEqual(len(self.gateways[0].asked), 2)

    def test_callback_per_user(self) -> None:
        """
        The callback is called once for each user.
        """
        users: list[str] = []
        self.gateways[0].on_asked = FakeGateway.ok
        self.send_all(["a", "b"], callback=lambda result: users.append(result.user_id))
        self.assertEqual(users, ["a", "b"])

    def test_long_list(self) -> None:
        """
        A long list goes out to its end, and leaves nothing behind.
        """
        users = named(WINDOW * 3)
        self.gateways[0].on_asked = FakeGateway.ok
        sent = self.send_all(users)
        self.turns()
        self.assertTrue(self.successResultOf(sent).succeeded)
        self.assertEqual(
            [asked.push.user_id for asked in self.gateways[0].asked], users
        )
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_time_lines(self) -> None:
        """
        Results of a short list have their time lines; a long list does without, and its
        callback gets them all the same.
        """
        self.gateways[0].on_asked = FakeGateway.ok
        for count, kept in ((TIME_LINES, True), (TIME_LINES + 1, False)):
            seen: list[PushResult] = []
            sent = self.send_all(named(count), callback=seen.append)
            self.turns()
            results = self.successResultOf(sent).results
            self.assertEqual({bool(one.time_line) for one in results}, {kept})
            self.assertEqual({bool(one.time_line) for one in seen}, {True})

    def test_batch(self) -> None:
        """
        While it is under way one can see how far it is.
        """
        batch = self.batch(["a", "b", "c"])
        gateway = self.gateways[0]
        gateway.ok(gateway.asked[0])
        gateway.error(gateway.asked[1], ErrorCode.OFFLINE)
        self.assertEqual((batch.done, batch.total), (2, 3))
        self.assertIs(batch.results["a"].code, ResultCode.SUCCESS)
        self.assertEqual(
            batch.counts,
            {
                ResultCode.SUCCESS: 1,
                ResultCode.FAILURE: 0,
                ResultCode.OFFLINE: 1,
                ResultCode.TIMEOUT: 0,
            },
        )
        self.assertNoResult(batch.finished)

    def test_time_outs(self) -> None:
        """
        The time of each user begins when its push is sent.
        """
        sent = self.send_all(named(WINDOW + 1), timeout=3)
        self.turns()
        self.network.advance(3.1)
        self.turns()
        self.assertNoResult(sent)
        self.network.advance(3.1)
        self.turns()
        self.assertEqual(
            self.successResultOf(sent).count(ResultCode.TIMEOUT), WINDOW + 1
        )


class RefusedTests(ListTestCase):
    """
    What is refused before anything is sent.
    """

    def refused(self, users: Any, **settings: Any) -> str:
        error = self.failureResultOf(self.send_all(users, **settings), PushError)
        self.assertEqual(self.gateways[0].asked, [])
        return str(error.value)

    def test_too_many(self) -> None:
        """
        More than 100,000 users are too many for one list.
        """
        self.assertIn("100001 user_ids", self.refused(named(100_001)))

    def test_one_too_large(self) -> None:
        """
        If one user of the list cannot be sent to, nobody is.
        """
        self.assertIn("too large", self.refused(["a", "x" * 10240, "b"]))

    def test_one_empty(self) -> None:
        """
        Nor if one has no name (D-14).
        """
        self.assertIn("user id", self.refused(["a", "", "b"]))

    def test_not_started(self) -> None:
        """
        A sender that is not started has nobody to ask.
        """
        sender = PushSender(ONE, reactor=self.network)
        context = PushContext(b"hi", user_ids=["a"])
        self.failureResultOf(sender.send_all(context), PushError)
        self.assertRaises(PushError, sender.batch, context)


class StreamTests(ListTestCase):
    """
    The streams to the gateways.
    """

    def setUp(self) -> None:
        self.directory = FakeDirectory()
        self.addresses = self.directory
        super().setUp()

    def with_routes(self, *routes: Route | None) -> list[str]:
        """
        Give each of so many users a route, or none.
        """
        self.directory.answers = [
            succeed([] if route is None else [route]) for route in routes
        ]
        return named(len(routes))

    def test_window(self) -> None:
        """
        A gateway has a thousand pushes under way; each that ends is replaced.
        """
        users = self.with_routes(*[FIRST] * (WINDOW + 5))
        self.send_all(users)
        self.turns()
        gateway = self.gateways[0]
        self.assertEqual(len(gateway.asked), WINDOW)
        for asked in gateway.asked[:2]:
            gateway.ok(asked)
        self.turns()
        self.assertEqual(len(gateway.asked), WINDOW + 2)

    def test_large_content(self) -> None:
        """
        Of large content as much is under way as leaves others room in the send buffer.
        """
        users = self.with_routes(*[FIRST] * WINDOW)
        self.send_all(users, content=bytes(10_000))
        self.turns()
        self.assertLess(len(self.gateways[0].asked) * 10_000, 2 << 20)
        self.assertGreater(len(self.gateways[0].asked) * 10_000, 1 << 20)

    def test_slow_gateway(self) -> None:
        """
        A gateway that does not answer holds up its own users only.
        """
        slow, quick = WINDOW + 100, 2 * WINDOW
        users = self.with_routes(*[FIRST] * slow, *[SECOND] * quick)
        self.gateways[1].on_asked = FakeGateway.ok
        batch = self.batch(users)
        self.turns()
        self.assertEqual(len(self.gateways[0].asked), WINDOW)
        self.assertEqual(len(self.gateways[1].asked), quick)
        self.assertEqual(batch.done, quick)

    def test_gateways_take_turns(self) -> None:
        """
        Nobody waits until all users of another gateway have been served.
        """
        users = self.with_routes(*[FIRST] * 60, *[SECOND] * 60)
        order: list[int] = []
        for number, gateway in enumerate(self.gateways):

            def asked(gateway: FakeGateway, asked: Any, number: int = number) -> None:
                order.append(number)
                gateway.ok(asked)

            gateway.on_asked = asked
        held: list[Deferred[Any]] = [Deferred() for _ in users]
        self.directory.answers = list(held)
        self.send_all(users)
        for number, one in enumerate(held):
            one.callback([FIRST if number < 60 else SECOND])
        self.turns()
        self.assertEqual(order, [0, 1] * 60)

    def test_offline(self) -> None:
        """
        Users without a route are offline; no gateway is asked.
        """
        sent = self.send_all(self.with_routes(FIRST, None, None))
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.turns()
        self.assertEqual(
            [one.code for one in self.successResultOf(sent).results],
            [ResultCode.SUCCESS, ResultCode.OFFLINE, ResultCode.OFFLINE],
        )

    def test_look_ups(self) -> None:
        """
        Hundreds of routes are looked up at a time, and no more than that.
        """
        held: list[Deferred[Any]] = [Deferred() for _ in range(LOOK_UPS + 100)]
        self.directory.answers = list(held)
        self.gateways[0].on_asked = FakeGateway.ok
        sent = self.send_all(named(len(held)))
        self.turns()
        self.assertEqual(len(self.directory.answers), 100)
        for one in held[:30]:
            one.callback([FIRST])
        self.turns()
        self.assertEqual(len(self.directory.answers), 70)
        self.assertEqual(len(self.gateways[0].asked), 30)
        for one in held[30:]:
            one.callback([FIRST])
            self.turns(3)
        self.assertTrue(self.successResultOf(sent).succeeded)

    def test_look_up_fails(self) -> None:
        """
        A user whose routes cannot be looked up is a failure; the others are not.
        """
        self.with_routes(FIRST, FIRST)
        self.directory.answers.insert(1, fail(Unavailable("away")))
        self.gateways[0].on_asked = FakeGateway.ok
        sent = self.send_all(["a", "b", "c"])
        self.turns()
        self.assertEqual(
            [one.code for one in self.successResultOf(sent).results],
            [ResultCode.SUCCESS, ResultCode.FAILURE, ResultCode.SUCCESS],
        )

    def test_look_up_takes_too_long(self) -> None:
        """
        So is one whose look-up does not end within the time-out.
        """
        self.directory.answers = [Deferred()]
        sent = self.send_all(["a"], timeout=1)
        self.network.advance(1.1)
        self.turns()
        self.assertEqual(self.successResultOf(sent).count(ResultCode.FAILURE), 1)

    def test_look_up_breaks(self) -> None:
        """
        A directory with a bug ends the push to that user only, and is logged.
        """
        self.directory.answers = [fail(ZeroDivisionError())]
        sent = self.send_all(["a"])
        self.turns()
        self.assertEqual(self.successResultOf(sent).count(ResultCode.FAILURE), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_waited_long(self) -> None:
        """
        The routes of users who waited long for their turn are looked up again.
        """
        users = self.with_routes(*[FIRST] * (WINDOW + 1))
        self.directory.answers.append(succeed([SECOND]))
        self.send_all(users, timeout=10)
        self.turns()
        self.network.advance(2.5)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.turns()
        self.assertEqual(
            [one.push.user_id for one in self.gateways[1].asked], [users[-1]]
        )

    def test_waited_shortly(self) -> None:
        """
        Those of others are not.
        """
        users = self.with_routes(*[FIRST] * (WINDOW + 1))
        self.send_all(users, timeout=10)
        self.turns()
        self.network.advance(1.5)
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.turns()
        self.assertEqual(self.gateways[0].asked[-1].push.user_id, users[-1])

    def test_does_not_hold_up_the_reactor(self) -> None:
        """
        Even a list that needs nobody's answer goes on in slices.
        """
        self.directory.answers = [succeed([]) for _ in range(5000)]
        batch = self.batch(named(5000))
        begun = batch.done
        others: list[int] = []
        self.network.callLater(0, lambda: others.append(batch.done))
        self.turns()
        self.assertTrue(0 < begun < others[0] < 5000, (begun, others))
        self.assertEqual(self.successResultOf(batch.finished).count(OFFLINE), 5000)

    def test_stop_in_the_middle(self) -> None:
        """
        When the first connection has been closed, the rest of a list does not go out
        on the second.
        """
        users = self.with_routes(*[FIRST] * (2 * WINDOW))
        sent = self.send_all(users)
        self.turns()
        self.sender.stop()
        aggregate = self.successResultOf(sent)
        self.assertEqual(aggregate.count(ResultCode.FAILURE), WINDOW)
        self.assertEqual(len(aggregate.unsent), WINDOW)
        self.assertEqual(self.gateways[1].asked, [])

    def test_two_lists(self) -> None:
        """
        Two lists go on side by side.
        """
        users = self.with_routes(*[FIRST] * 20)
        self.gateways[0].on_asked = FakeGateway.ok
        one, two = self.send_all(users[:10]), self.send_all(users[10:])
        self.turns()
        self.assertTrue(self.successResultOf(one).succeeded)
        self.assertTrue(self.successResultOf(two).succeeded)


class ProgressTests(ListTestCase):
    """
    What a caller is told on the way.
    """

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[int, int, int]] = []

    def progress(self, done: int, total: int, counts: Mapping[Any, int]) -> None:
        self.told.append((done, total, counts[ResultCode.SUCCESS]))

    def answer(self, count: int) -> None:
        """
        Have so many pushes delivered, the earliest first.
        """
        gateway = self.gateways[0]
        for asked in gateway.asked[:count]:
            gateway.ok(asked)
        del gateway.asked[:count]
        self.turns()

    def test_now_and_then(self) -> None:
        """
        It is told four times a second at most, and at the end.
        """
        self.send_all(named(10), self.progress)
        self.answer(1)
        self.assertEqual(self.told, [])
        self.network.advance(0.25)
        self.answer(2)
        self.answer(1)
        self.assertEqual(self.told, [(3, 10, 3)])
        self.network.advance(0.1)
        self.answer(6)
        self.assertEqual(self.told, [(3, 10, 3), (10, 10, 10)])

    def test_end_once(self) -> None:
        """
        The end is told once, whenever it is.
        """
        self.send_all(named(2), self.progress)
        self.network.advance(1)
        self.answer(2)
        self.assertEqual(self.told, [(2, 2, 2)])

    def test_broken(self) -> None:
        """
        One that raises is logged, and the list goes on.
        """
        sent = self.send_all(named(2), lambda done, total, counts: 1 / 0)
        self.answer(2)
        self.assertTrue(self.successResultOf(sent).succeeded)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancels(self) -> None:
        """
        One that has seen enough may end the list.
        """
        batch = self.batch(named(10), lambda *told: batch.cancel())
        self.network.advance(1)
        self.answer(3)
        aggregate = self.successResultOf(batch.finished)
        self.assertEqual(aggregate.count(ResultCode.SUCCESS), 3)
        self.assertEqual(aggregate.count(ResultCode.FAILURE), 7)


class CancelTests(ListTestCase):
    """
    Lists that are ended early.
    """

    def test_partial_results(self) -> None:
        """
        What has ended is told, what was under way is a failure, and the rest is named:
        it may be sent again without anybody getting it twice.
        """
        users = named(WINDOW + 10)
        batch = self.batch(users)
        self.turns()
        gateway = self.gateways[0]
        gateway.ok(gateway.asked[0])
        batch.cancel()
        aggregate = self.successResultOf(batch.finished)
        self.assertEqual(aggregate.count(ResultCode.SUCCESS), 1)
        self.assertEqual(aggregate.count(ResultCode.FAILURE), WINDOW - 1)
        self.assertEqual(list(aggregate.unsent), users[WINDOW:])
        self.assertFalse(aggregate.succeeded)

    def test_nothing_is_left(self) -> None:
        """
        After that nothing is sent, and nothing is kept.
        """
        batch = self.batch(named(WINDOW + 10))
        self.turns()
        batch.cancel()
        self.turns()
        self.network.advance(10)
        self.assertEqual(len(self.gateways[0].asked), WINDOW)
        self.assertEqual(self.sender.pending, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_deferred(self) -> None:
        """
        Cancelling the Deferred does the same: it fires with what there is.
        """
        sent = self.send_all(named(2))
        self.gateways[0].ok(self.gateways[0].asked[0])
        sent.cancel()
        self.assertEqual(
            [one.code for one in self.successResultOf(sent).results],
            [ResultCode.SUCCESS, ResultCode.FAILURE],
        )

    def test_time_limit(self) -> None:
        """
        So a time limit for all of it is one line.
        """
        sent = self.send_all(named(WINDOW + 10), timeout=60)
        sent.addTimeout(5, self.network)
        self.turns()
        self.network.advance(5.1)
        self.assertEqual(len(self.successResultOf(sent).unsent), 10)

    def test_afterwards(self) -> None:
        """
        What has ended cannot be cancelled.
        """
        batch = self.batch(["a"])
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.turns()
        batch.cancel()
        self.assertTrue(self.successResultOf(batch.finished).succeeded)

    def test_twice(self) -> None:
        """
        Once is enough.
        """
        batch = self.batch(["a"])
        batch.cancel()
        batch.cancel()
        self.assertEqual(len(self.successResultOf(batch.finished).results), 1)

    def test_in_callback(self) -> None:
        """
        The callback of a user may end the list; that user has a result as well.
        """
        batch = self.batch(["a", "b"], callback=lambda result: batch.cancel())
        self.gateways[0].ok(self.gateways[0].asked[0])
        self.turns()
        aggregate = self.successResultOf(batch.finished)
        self.assertEqual([one.user_id for one in aggregate.results], ["a", "b"])
        self.assertEqual(aggregate.unsent, ())

    def test_while_looking_up(self) -> None:
        """
        Look-ups under way are given up; those users are named as not sent to.
        """
        directory = FakeDirectory(Deferred())
        sender = PushSender(directory, reactor=self.network)
        sender.start()
        while self.network.attempts:
            self.network.accept()
        self.network.advance(0)
        batch = sender.batch(PushContext(b"hi", user_ids=["a"]))
        batch.cancel()
        self.assertEqual(self.successResultOf(batch.finished).unsent, ("a",))
        self.assertEqual(self.network.getDelayedCalls(), [])


class SeveralGatewaysTests(ListTestCase):
    """
    In standalone mode all gateways are asked for each user.
    """

    addresses: Any = TWO

    def test_all_asked(self) -> None:
        """
        Each user is pushed to where it is.
        """
        sent = self.send_all(["a", "b"])
        one, two = self.gateways
        one.ok(one.asked[0])
        one.error(one.asked[1], ErrorCode.OFFLINE)
        two.error(two.asked[0], ErrorCode.OFFLINE)
        two.ok(two.asked[1])
        self.turns()
        self.assertTrue(self.successResultOf(sent).succeeded)
