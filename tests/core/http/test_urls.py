"""
Tests for L{mpush_tw.core.http.urls}: one reading of each URL, and none of odd ones.
"""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.http.urls import (
    BadUrl,
    Url,
    address_of,
    authority,
    is_public,
    normal_host,
    parse_url,
    resolve_location,
    without_user,
)


class UrlTests(SynchronousTestCase):
    """
    URLs as devices send them.
    """

    def test_plain(self) -> None:
        """
        A URL is taken apart.
        """
        self.assertEqual(
            parse_url("http://api.example.com/a/b?c=d&e"),
            Url("http", "api.example.com", 80, "/a/b?c=d&e"),
        )

    def test_port(self) -> None:
        """
        The port is the scheme's own unless one is written.
        """
        self.assertEqual(parse_url("https://a.test/").port, 443)
        self.assertEqual(parse_url("http://a.test:8080/").port, 8080)
        self.assertEqual(parse_url("http://a.test:/").port, 80)

    def test_without_path(self) -> None:
        """
        A URL that ends behind the host, or goes on with the query, asks for the root.
        """
        self.assertEqual(parse_url("http://a.test").path, "/")
        self.assertEqual(parse_url("http://a.test?x=1").path, "/?x=1")

    def test_fragment(self) -> None:
        """
        The fragment is not sent.
        """
        self.assertEqual(parse_url("http://a.test/x#y?z").path, "/x")

    def test_case(self) -> None:
        """
        Scheme and host mean the same in capitals; the path does not.
        """
        url = parse_url("HTTP://API.Example.COM/Path")
        self.assertEqual(url, Url("http", "api.example.com", 80, "/Path"))

    def test_final_dot(self) -> None:
        """
        A name with a final dot is the same name.
        """
        self.assertEqual(parse_url("http://a.test./x").host, "a.test")

    def test_other_scripts_in_the_path(self) -> None:
        """
        What no URL holds as it stands is escaped, what is escaped is left alone.
        """
        url = parse_url("http://a.test/\u4f60?q=%E4%BD%A0&r={1|2}")
        self.assertEqual(url.path, "/%E4%BD%A0?q=%E4%BD%A0&r={1|2}")

    def test_url_in_the_path(self) -> None:
        """
        A URL within the path is a part of the path.
        """
        url = parse_url("http://a.test/http://b.test/")
        self.assertEqual((url.host, url.path), ("a.test", "/http://b.test/"))

    def test_ipv4(self) -> None:
        """
        An address is a host, too.
        """
        self.assertEqual(parse_url("http://192.0.2.1:81/").host, "192.0.2.1")

    def test_ipv6(self) -> None:
        """
        An IPv6 address has one form, however it was written.
        """
        url = parse_url("http://[2001:DB8:0::0:1]:81/x")
        self.assertEqual(url, Url("http", "2001:db8::1", 81, "/x"))
        self.assertEqual(str(url), "http://[2001:db8::1]:81/x")

    def test_authority(self) -> None:
        """
        The port is named unless it is the scheme's own (S-36).
        """
        self.assertEqual(authority("http", "a.test", 80), "a.test")
        self.assertEqual(authority("http", "a.test", 443), "a.test:443")
        self.assertEqual(authority("https", "::1", 8443), "[::1]:8443")

    def test_origin(self) -> None:
        """
        URLs of one place have one origin, whatever their path.
        """
        one, other = parse_url("http://a.test/x"), parse_url("http://A.test:80/y")
        self.assertEqual(one.origin, other.origin)
        self.assertNotEqual(one.origin, parse_url("https://a.test/x").origin)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Any text is read or refused; what is read means the same when it is written and
        read again, and can stand in a request line.
        """
        for written in (text, "http://" + text, "http://a.test/" + text):
            try:
                url = parse_url(written)
            except BadUrl:
                continue
            self.assertEqual(parse_url(str(url)), url)
            self.assertRegex(str(url), r"\A[\x21-\x7e]+\Z")


class BadUrlTests(SynchronousTestCase):
    """
    URLs that are refused.
    """

    def refused(self, *urls: str, suspicious: bool) -> None:
        """
        Assert that each is refused.
        """
        for url in urls:
            error = self.assertRaises(BadUrl, parse_url, url)
            self.assertEqual(error.suspicious, suspicious, url)

    def test_broken(self) -> None:
        """
        What is no absolute URL of a host is broken, not suspicious.
        """
        self.refused(
            "",
            "/relative",
            "//a.test/x",
            "a.test/x",
            "http:",
            "http:a.test",
            "http:/a.test/",
            "http:///a.test/",
            "http://",
            "http://?x",
            "ftp://a.test/",
            "gopher://a.test/",
            "file:///etc/passwd",
            "httpx://a.test/",
            suspicious=False,
        )

    def test_split_requests(self) -> None:
        """
        Nothing that could end the request line and begin a header.
        """
        self.refused(
            "http://a.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            "http://a.test/x\ry",
            "http://a.test/x\ny",
            "http://a.test/x y",
            "http://a.test/x\ty",
            "http://a.test/\x00",
            "http://a.test\r\n.evil.test/",
            suspicious=False,
        )

    def test_user(self) -> None:
        """
        A user name makes one host look like another.
        """
        self.refused(
            "http://mapped.test@evil.test/",
            "http://mapped.test:80@evil.test/",
            "http://user:password@mapped.test/",
            "http://@mapped.test/",
            "http://mapped.test%40evil.test@evil.test/",
            "http://mapped.test\\@evil.test/",
            suspicious=True,
        )

    def test_odd_addresses(self) -> None:
        """
        Addresses in forms that resolvers understand, but lists do not.
        """
        self.refused(
            "http://2130706433/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://127.1/",
            "http://127.0.1/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1/",
            "http://127.0.0.0x1/",
            "http://127.0.0.01/",
            "http://127.0.0.1.1/",
            "http://256.0.0.1/",
            "http://a.0/",
            suspicious=True,
        )

    def test_odd_ipv6(self) -> None:
        """
        IPv6 addresses that are none, or name an interface of the node.
        """
        self.refused(
            "http://[::1/",
            "http://[::1]x/",
            "http://[]/",
            "http://[::1].mapped.test/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[127.0.0.1]/",
            "http://[v1.x]/",
            "http://[1:2:3:4:5:6:7:8:9]/",
            suspicious=True,
        )

    def test_odd_names(self) -> None:
        """
        Names that become another one somewhere below.
        """
        self.refused(
            "http://mapped.test\u3002evil.test/",
            "http://\uff11\uff12\uff17.0.0.1/",
            "http://\u212aubernetes/",
            "http://evil.test\\.mapped.test/",
            "http://evil.test%2f.mapped.test/",
            "http://a..test/",
            "http://.test/",
            "http://-a.test/",
            "http://a-.test/",
            f"http://{'a' * 64}.test/",
            f"http://{'a.' * 127}test/",
            "http://*/",
            suspicious=True,
        )

    def test_odd_ports(self) -> None:
        """
        Ports that are none.
        """
        self.refused(
            "http://a.test:0/",
            "http://a.test:65536/",
            "http://a.test:80:80/",
            "http://a.test:+80/",
            "http://a.test:80x/",
            "http://a.test:\u0668/",
            "http://a.test:080808/",
            suspicious=False,
        )


class LocationTests(SynchronousTestCase):
    """
    Where redirects lead (S-37).
    """

    def leads(self, location: str) -> str:
        """
        Resolve a redirect of one page.
        """
        base = parse_url("http://a.test:81/x/y?z")
        return str(resolve_location(base, location))

    def test_relative(self) -> None:
        """
        Relative forms go by the page, not by the path with something behind it.
        """
        self.assertEqual(self.leads("/q"), "http://a.test:81/q")
        self.assertEqual(self.leads("q"), "http://a.test:81/x/q")
        self.assertEqual(self.leads("../q?r"), "http://a.test:81/q?r")
        self.assertEqual(self.leads("?r"), "http://a.test:81/x/y?r")

    def test_elsewhere(self) -> None:
        """
        Absolute forms lead elsewhere.
        """
        self.assertEqual(self.leads("https://b.test/q"), "https://b.test/q")
        self.assertEqual(self.leads("//b.test/q"), "http://b.test/q")

    def test_escaped(self) -> None:
        """
        Blanks and other scripts, which servers send as they are, are escaped.
        """
        self.assertEqual(self.leads("/a b"), "http://a.test:81/a%20b")
        self.assertEqual(self.leads(" /\u4f60 "), "http://a.test:81/%E4%BD%A0")

    def test_refused(self) -> None:
        """
        A redirect is read as strictly as what a device sends.
        """
        for location in (
            "http://a.test@evil.test/",
            "//2130706433/",
            "http://[::1",
            "ftp://a.test/",
            "javascript:alert(1)",
        ):
            self.assertRaises(BadUrl, self.leads, location)


class PublicTests(SynchronousTestCase):
    """
    Which addresses belong to the open internet.
    """

    def test_public(self) -> None:
        """
        Those of strangers.
        """
        for text in (
            "8.8.8.8",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ):
            self.assertTrue(is_public(ip_address(text)), text)

    def test_private(self) -> None:
        """
        Not this machine, its networks, its link, or groups; nor what stands for them.
        """
        for text in (
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2001:0:808:808:0:0:f5ff:fffe",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ):
            self.assertFalse(is_public(ip_address(text)), text)


class HostTests(SynchronousTestCase):
    """
    Hosts of the settings, and what goes into logs.
    """

    def test_normal(self) -> None:
        """
        A host of the settings compares with that of a URL.
        """
        self.assertEqual(normal_host("API.Example.com."), "api.example.com")
        self.assertEqual(normal_host("[2001:DB8::1]"), "2001:db8::1")
        self.assertEqual(normal_host("2001:db8:0::1"), "2001:db8::1")
        self.assertRaises(BadUrl, normal_host, "127.1")

    def test_address(self) -> None:
        """
        A name is no address.
        """
        self.assertEqual(address_of("192.0.2.1"), ip_address("192.0.2.1"))
        self.assertIsNone(address_of("a.test"))

    def test_password(self) -> None:
        """
        A password never gets into a log.
        """
        self.assertEqual(without_user("http://u:p@a.test/x"), "http://***@a.test/x")
        self.assertEqual(without_user("http://a.test/x@y"), "http://a.test/x@y")
