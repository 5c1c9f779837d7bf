"""
Tests for L{mpush_tw.core.http.reach}: where devices get to, and where not.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.http.reach import (
    NoAddress,
    Place,
    Reach,
    Refused,
    absolute_target,
    host_header,
)
from mpush_tw.core.http.urls import BadUrl, parse_url
from mpush_tw.interfaces import DnsTarget, HttpTarget
from tests.core.http.fakes import FakeMapping, FakeNames


class ReachTestCase(SynchronousTestCase):
    """
    C{mapped.test} is mapped, C{public.test} is allowed, and so on.
    """

    follow_outside = False

    def setUp(self) -> None:
        self.mapping = FakeMapping({"mapped.test": DnsTarget("10.0.0.9", 8080)})
        self.names = FakeNames(
            {
                "public.test": ["8.8.8.8", "2606:4700::1", "8.8.4.4"],
                "mixed.test": ["10.0.0.1", "8.8.8.8"],
                "inner.test": ["10.0.0.1", "127.0.0.1"],
                "backend.inner": ["10.0.0.7"],
                "down.test": ["8.8.8.8"],
                "down.inner": ["10.0.0.1"],
                "stranger.test": ["8.8.8.8"],
            }
        )
        self.reach = Reach(
            self.mapping,
            ["mapped.test", "down.test", "down.inner"],
            [
                "Public.Test",
                "mixed.test",
                "inner.test",
                "nowhere.test",
                "127.0.0.1",
                "8.8.8.8",
                "[2606:4700::1]",
                "::ffff:127.0.0.1",
            ],
            self.names,
            self.follow_outside,
        )

    def place(self, url: str) -> Place:
        """
        Find the place of a URL, or raise why not.
        """
        return self.successResultOf(
            Deferred.fromCoroutine(self.reach.place(parse_url(url)))
        )

    def refused(self, url: str) -> None:
        """
        Assert that a URL is refused.
        """
        waiting = Deferred.fromCoroutine(self.reach.place(parse_url(url)))
        self.failureResultOf(waiting, Refused)

    def nobody(self, url: str) -> None:
        """
        Assert that nobody is there.
        """
        waiting = Deferred.fromCoroutine(self.reach.place(parse_url(url)))
        self.failureResultOf(waiting, NoAddress)


class PlaceTests(ReachTestCase):
    """
    URLs of devices (DESIGN 5.9).
    """

    def test_mapped(self) -> None:
        """
        A mapped host is asked where the mapping says, though that is private; the port
        in the URL means nothing.
        """
        for url in ("http://mapped.test/x", "http://MAPPED.test:99/x"):
            place = self.place(url)
            self.assertEqual(
                place.target, HttpTarget("http", "mapped.test", 8080, ("10.0.0.9",))
            )
        self.assertEqual(self.names.asked, [])

    def test_mapped_to_a_name(self) -> None:
        """
        A backend may be a name, which is looked up.
        """
        self.mapping.targets["mapped.test"] = DnsTarget("backend.inner", 80)
        self.assertEqual(
            self.place("http://mapped.test/").target.addresses, ("10.0.0.7",)
        )

    def test_mapped_to_an_unknown_name(self) -> None:
        """
        If nobody knows it, nobody is there.
        """
        self.mapping.targets["mapped.test"] = DnsTarget("gone.inner", 80)
        self.nobody("http://mapped.test/")

    def test_mapping_knows_more(self) -> None:
        """
        A mapping that finds targets at run time need not be in the settings.
        """
        self.mapping.targets["found.test"] = DnsTarget("10.0.0.5", 80)
        self.assertEqual(
            self.place("http://found.test/").target.addresses, ("10.0.0.5",)
        )

    def test_mapped_address(self) -> None:
        """
        An address can be mapped like a name.
        """
        self.mapping.targets["127.0.0.1"] = DnsTarget("127.0.0.1", 8090)
        self.assertEqual(self.place("http://127.0.0.1:1/").target.port, 8090)

    def test_allowed(self) -> None:
        """
        An allowed host is asked at its public addresses, at the port in the URL, in an
        order that does not change.
        """
        place = self.place("https://public.test:8443/x")
        self.assertEqual(
            place.target,
            HttpTarget(
                "https", "public.test", 8443, ("8.8.4.4", "8.8.8.8", "2606:4700::1")
            ),
        )

    def test_allowed_address(self) -> None:
        """
        So is an allowed address, which needs no looking up.
        """
        self.assertEqual(self.place("http://8.8.8.8/").target.addresses, ("8.8.8.8",))
        place = self.place("http://[2606:4700:0::1]/")
        self.assertEqual(place.target.addresses, ("2606:4700::1",))
        self.assertEqual(self.names.asked, [])

    def test_only_public(self) -> None:
        """
        Of an allowed host with private addresses, too, only the public ones are asked.
        """
        self.assertEqual(
            self.place("http://mixed.test/").target.addresses, ("8.8.8.8",)
        )

    def test_private(self) -> None:
        """
        An allowed host that has only private addresses is refused: a list of names is
        no permission to look around inside.
        """
        self.refused("http://inner.test/")
        self.refused("http://127.0.0.1/")
        self.refused("http://[::ffff:7f00:1]/")

    def test_stranger(self) -> None:
        """
        A host that is not named is refused, and not even looked up.
        """
        for host in (
            "stranger.test",
            "sub.mapped.test",
            "mapped.test.stranger.test",
            "localhost",
            "169.254.169.254",
            "10.0.0.9",
            "[::1]",
            "backend.inner",
        ):
            self.refused(f"http://{host}/")
        self.assertEqual(self.names.asked, [])

    def test_unknown(self) -> None:
        """
        An allowed host without an address is nowhere.
        """
        self.nobody("http://nowhere.test/")

    def test_no_backend(self) -> None:
        """
        While all backends of a mapped host are down, it is asked at its public address
        if it has one, as the original does (server 15.4).
        """
        place = self.place("http://down.test:81/x")
        self.assertEqual(
            place.target, HttpTarget("http", "down.test", 81, ("8.8.8.8",))
        )
        self.assertIsNone(place.mapped)
        self.nobody("http://down.inner/")

    def test_looked_up_once(self) -> None:
        """
        A name that has a public address when it is judged and another one afterwards
        leads to the address that was judged.
        """
        answers = [["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8"]]
        self.names.answer = lambda name: answers.pop(0)
        place = self.place("http://public.test/")
        self.assertEqual(place.target.addresses, ("8.8.8.8",))
        self.assertEqual(self.names.asked, ["public.test"])
        self.refused("http://public.test/")

    def test_bad_settings(self) -> None:
        """
        A name in the settings that no URL can have is not passed over.
        """
        self.assertRaises(BadUrl, Reach, self.mapping, [], ["127.1"], self.names)


class RedirectTests(ReachTestCase):
    """
    Where redirects may lead.
    """

    def redirect(self, before: str, after: str) -> Place:
        """
        Follow a redirect, or raise why not.
        """
        waiting = Deferred.fromCoroutine(
            self.reach.redirect(self.place(before), parse_url(after))
        )
        results: list[Place] = []
        waiting.addCallback(results.append)
        failure = None
        if not results:
            failure = self.failureResultOf(waiting)
            raise failure.value
        return results[0]

    def test_same_host(self) -> None:
        """
        On the same host it is the same backend that is asked.
        """
        first = self.place("http://mapped.test/x")
        self.mapping.targets["mapped.test"] = DnsTarget("10.0.0.10", 80)
        place = self.successResultOf(
            Deferred.fromCoroutine(
                self.reach.redirect(first, parse_url("http://mapped.test/y"))
            )
        )
        self.assertEqual(place.target, first.target)
        self.assertEqual(place.url.path, "/y")

    def test_own_address(self) -> None:
        """
        A backend that redirects to its own address, the only name it may know, means
        itself.
        """
        place = self.redirect("http://mapped.test/x", "http://10.0.0.9:8080/y")
        self.assertEqual(place.target.host, "mapped.test")
        self.assertEqual(str(place.url), "http://mapped.test/y")

    def test_neighbour(self) -> None:
        """
        The next address, or another port of it, is not.
        """
        for url in ("http://10.0.0.10:8080/", "http://10.0.0.9/", "http://10.0.0.9:1/"):
            self.assertRaises(Refused, self.redirect, "http://mapped.test/", url)

    def test_within_reach(self) -> None:
        """
        A redirect to another host that devices may name is followed, mapped or not.
        """
        place = self.redirect("http://public.test/", "http://mapped.test/y")
        self.assertEqual(place.target.addresses, ("10.0.0.9",))
        place = self.redirect("http://mapped.test/", "https://public.test/")
        self.assertEqual(place.target.port, 443)

    def test_outside(self) -> None:
        """
        One to a host that devices may not name is not.
        """
        self.assertRaises(
            Refused, self.redirect, "http://public.test/", "http://stranger.test/"
        )

    def test_inside(self) -> None:
        """
        Nor one into the network of the node.
        """
        for url in ("http://127.0.0.1/", "http://inner.test/", "http://localhost:80/"):
            self.assertRaises(Refused, self.redirect, "http://public.test/", url)


class FollowOutsideTests(RedirectTests):
    """
    C{mp.http.follow-outside=true}.
    """

    follow_outside = True

    def setUp(self) -> None:
        super().setUp()
        self.names.addresses["localhost"] = ["127.0.0.1", "::1"]

    def test_outside(self) -> None:
        """
        Strangers are asked when a redirect leads there, at their public addresses.
        """
        place = self.redirect("http://public.test/", "http://stranger.test/")
        self.assertEqual(place.target.addresses, ("8.8.8.8",))

    def test_not_by_devices(self) -> None:
        """
        Devices themselves still may not name them.
        """
        self.refused("http://stranger.test/")


class ShownTests(ReachTestCase):
    """
    What servers are told about themselves (S-36).
    """

    def told(self, url: str, keep_original: bool = False) -> tuple[str, str]:
        """
        Give C{Host} and the whole URL.
        """
        place = self.place(url)
        return (
            host_header(place, keep_original),
            absolute_target(place, keep_original),
        )

    def test_mapped(self) -> None:
        """
        A backend is told its own address, with the port unless it is 80.
        """
        self.assertEqual(
            self.told("http://mapped.test:99/x?y"),
            ("10.0.0.9:8080", "http://10.0.0.9:8080/x?y"),
        )
        self.mapping.targets["mapped.test"] = DnsTarget("::1", 80)
        self.assertEqual(self.told("http://mapped.test/"), ("[::1]", "http://[::1]/"))

    def test_original(self) -> None:
        """
        Or the host that the device has asked for, if the operator wants it.
        """
        self.assertEqual(
            self.told("http://mapped.test:99/x", keep_original=True),
            ("mapped.test:99", "http://mapped.test:99/x"),
        )

    def test_https(self) -> None:
        """
        An https backend is always asked under the name that its certificate is for.
        """
        place = self.place("https://mapped.test/x")
        self.assertEqual(place.target.host, "mapped.test")
        self.assertEqual(place.target.port, 8080)
        self.assertEqual(self.told("https://mapped.test/x")[0], "mapped.test")

    def test_allowed(self) -> None:
        """
        Another host is told its name.
        """
        self.assertEqual(self.told("http://public.test/")[0], "public.test")
        self.assertEqual(self.told("http://public.test:81/")[0], "public.test:81")
