"""
Tests for L{mpush_tw.core.http.headers} (server 15, S-34, S-35, S-38).
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.core.http.headers import (
    BadHeader,
    read_timeout_ms,
    reason_text,
    request_headers,
    response_headers,
    without_content,
    without_credentials,
)
from mpush_tw.protocol.fields import decode_headers

OURS = ((b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-port", b"40000"))


def sent(headers: dict[str, str] | None) -> list[tuple[bytes, bytes]]:
    """
    Give what a server gets of a device's headers, without what says whose they are.
    """
    pairs = request_headers(headers, "192.0.2.1", 40000)
    assert pairs[-2:] == OURS
    return list(pairs[:-2])


class RequestHeaderTests(SynchronousTestCase):
    """
    From the device to the server.
    """

    def test_kept(self) -> None:
        """
        Headers of the device arrive, in its order and writing.
        """
        self.assertEqual(
            sent({"x-ONE": "1", "Accept-Encoding": "gzip", "Cookie": "a=b"}),
            [(b"x-ONE", b"1"), (b"Accept-Encoding", b"gzip"), (b"Cookie", b"a=b")],
        )

    def test_none(self) -> None:
        """
        Without headers the server still learns who asks.
        """
        self.assertEqual(sent(None), [])

    def test_ours_to_say(self) -> None:
        """
        What concerns the connection, the length of the body, or the proxy is not the
        device's to say (S-34).
        """
        for name in (
            "Connection",
            "content-length",
            "EXPECT",
            "Host",
            "Keep-Alive",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Forwarded",
            "X-Forwarded-For",
            "x-forwarded-port",
            "X-Forwarded-Host",
            "X-Real-IP",
            "readTimeout",
            "READTIMEOUT",
        ):
            self.assertEqual(sent({name: "1"}), [], name)
            self.assertEqual(sent({f" {name}\t": "1"}), [], name)

    def test_named_by_connection(self) -> None:
        """
        Nor is a header that the device says is for the next hop only.
        """
        self.assertEqual(
            sent({"X-A": "1", "Connection": "close, x-a", "X-B": "2"}), [(b"X-B", b"2")]
        )

    def test_lines_end_in_cr_lf(self) -> None:
        """
        Some devices end header lines in CR LF (clients 9.20).
        """
        headers = decode_headers("A:1\r\nB:2\r\n\r\n")
        self.assertEqual(sent(headers), [(b"A", b"1"), (b"B", b"2")])

    def test_last_line(self) -> None:
        """
        The last line need not have an end (S-38).
        """
        self.assertEqual(sent(decode_headers("A:1\nB:2")), [(b"A", b"1"), (b"B", b"2")])

    def test_empty(self) -> None:
        """
        An empty value is empty, not that of the line before (S-38).
        """
        self.assertEqual(sent(decode_headers("A:1\nB:\n")), [(b"A", b"1"), (b"B", b"")])

    def test_blanks(self) -> None:
        """
        Blanks around a value are not part of it.
        """
        self.assertEqual(sent({"A": " 1 2 "}), [(b"A", b"1 2")])

    def test_colons(self) -> None:
        """
        A value may have colons, and what else HTTP allows in it.
        """
        for value in ("a:b:c", "charset=Unicode (UTF-8)", "a\tb", '"<>{}|\\^`'):
            self.assertEqual(sent({"X": value}), [(b"X", value.encode())])

    def test_other_letters(self) -> None:
        """
        Letters of western Europe go out as the original sends them, others in UTF-8.
        """
        self.assertEqual(sent({"X": "\u00e9"}), [(b"X", b"\xe9")])
        self.assertEqual(sent({"X": "\u00e9\u4f60"}), [(b"X", "\u00e9\u4f60".encode())])

    def test_split(self) -> None:
        """
        A value that would begin another header, or another request, is refused.
        """
        for value in (
            "a\rX-Admin: 1",
            "a\r\nX-Admin: 1",
            "a\nX-Admin: 1",
            "a\r\n\r\nGET /evil HTTP/1.1",
            "\rX: 1",
            "a\r\r",
            "a\x00b",
            "a\x0bb",
            "a\x0cb",
            "a\x7fb",
        ):
            self.assertRaises(BadHeader, sent, {"X": value})

    def test_bad_names(self) -> None:
        """
        So is a name that is none.
        """
        for name in ("a b", "a\r\nb", "a\rb", "a(b)", "\u00e9", "a\x00", "[x]", "a,b"):
            self.assertRaises(BadHeader, sent, {name: "1"})

    @given(st.dictionaries(st.text(), st.text()))
    def test_anything(self, headers: dict[str, str]) -> None:
        """
        Whatever a device sends, no line of it is more than one line.
        """
        try:
            pairs = request_headers(headers, "192.0.2.1", 1)
        except BadHeader:
            return
        for name, value in pairs:
            self.assertRegex(name, rb"\A[!-9;-~]+\Z")
            self.assertNotRegex(value, rb"[\r\n\x00]")


class ReadTimeoutTests(SynchronousTestCase):
    """
    How long a device waits.
    """

    def test_named(self) -> None:
        """
        The device says so in milliseconds, the name in any case.
        """
        for name in ("readTimeout", "READTIMEOUT", "readtimeout"):
            self.assertEqual(read_timeout_ms({"A": "b", name: "2500"}), 2500)
        self.assertEqual(read_timeout_ms({"readTimeout": "2500\r"}), 2500)

    def test_not_named(self) -> None:
        """
        Anything but a number above 0 counts as not said (server 15.2).
        """
        for value in ("", "0", "-1", "x", "1.5", "1e3", "\u0661", "9999999999", "1 2"):
            self.assertIsNone(read_timeout_ms({"readTimeout": value}), value)
        self.assertIsNone(read_timeout_ms({}))
        self.assertIsNone(read_timeout_ms(None))


class RedirectHeaderTests(SynchronousTestCase):
    """
    What a second server gets.
    """

    def test_credentials(self) -> None:
        """
        Not what the first one was trusted with.
        """
        pairs = ((b"Authorization", b"x"), (b"COOKIE", b"y"), (b"Accept", b"z"))
        self.assertEqual(without_credentials(pairs), ((b"Accept", b"z"),))

    def test_content(self) -> None:
        """
        Nor what describes a body that it does not get.
        """
        pairs = ((b"Content-Type", b"x"), (b"content-encoding", b"y"), (b"A", b"z"))
        self.assertEqual(without_content(pairs), ((b"A", b"z"),))


class ResponseHeaderTests(SynchronousTestCase):
    """
    From the server to the device.
    """

    def test_kept(self) -> None:
        """
        Headers arrive in the server's writing, after the length of the body.
        """
        headers = response_headers([(b"x-ONE", b"1"), (b"ETag", b"w")], 5)
        self.assertEqual(
            list(headers.items()),
            [("content-length", "5"), ("x-ONE", "1"), ("ETag", "w")],
        )

    def test_empty(self) -> None:
        """
        Without a body no length is said, and there may be no headers at all.
        """
        self.assertEqual(response_headers([], 0), {})

    def test_repeated(self) -> None:
        """
        Values of a header that comes twice are joined (S-35).
        """
        headers = response_headers([(b"Via", b"a"), (b"X", b"1"), (b"Via", b"b")], 0)
        self.assertEqual(headers, {"Via": "a, b", "X": "1"})

    def test_cookies(self) -> None:
        """
        Cookies cannot be joined: the last one counts.
        """
        headers = response_headers([(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")], 0)
        self.assertEqual(headers, {"Set-Cookie": "b"})

    def test_control_characters(self) -> None:
        """
        What would be taken for the end of a line is none in what the device gets.
        """
        headers = response_headers([(b"X", b"a\rb\nc\x00d\te")], 0)
        self.assertEqual(headers, {"X": "a b c d\te"})
        self.assertEqual(reason_text(b"O\rK"), "O K")

    def test_other_letters(self) -> None:
        """
        Bytes beyond ASCII are the letters that the original makes of them.
        """
        self.assertEqual(response_headers([(b"X", b"\xe9")], 0), {"X": "\u00e9"})
