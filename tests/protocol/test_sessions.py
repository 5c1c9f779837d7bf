"""
Tests of the reusable session: L{mpush_tw.protocol.sessions}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.protocol.crypto import AesCipher
from mpush_tw.protocol.sessions import (
    SessionRecord,
    decode_key,
    encode_key,
    new_session_id,
)
from tests.protocol.strategies import maybe_text, sixteen_bytes

KEY = bytes.fromhex("f0e0d0c0b0a090807060504030201000")
IV = bytes.fromhex("101112131415161718191a1b1c1d1e1f")
KEY_TEXT = "-16|-32|-48|-64|-80|-96|-112|-128|112|96|80|64|48|32|16|0"
IV_TEXT = "16|17|18|19|20|21|22|23|24|25|26|27|28|29|30|31"
WHOLE = f"android,10,1.0,dev-1,{KEY_TEXT},{IV_TEXT}"


class SessionIdTests(SynchronousTestCase):
    """
    Session ids, the tickets of fast connect.
    """

    def test_form(self) -> None:
        """
        An id has the form of the original's: 32 lower-case hex digits.
        """
        self.assertRegex(new_session_id(), r"\A[0-9a-f]{32}\Z")

    def test_no_two_alike(self) -> None:
        """
        Ids drawn in the same moment differ (D10).
        """
        self.assertEqual(len({new_session_id() for _ in range(1000)}), 1000)


class KeyTextTests(SynchronousTestCase):
    """
    Keys as decimal bytes.
    """

    @given(sixteen_bytes)
    def test_round_trip(self, key: bytes) -> None:
        """
        Every key comes back as it was.
        """
        self.assertEqual(decode_key(encode_key(key)), key)

    def test_signed(self) -> None:
        """
        Bytes are written signed, as Java prints them.
        """
        self.assertEqual(encode_key(KEY), KEY_TEXT)

    def test_unsigned_is_read(self) -> None:
        """
        Unsigned bytes are read too: the Swift client writes them.
        """
        self.assertEqual(decode_key("|".join(map(str, KEY))), KEY)

    def test_wrong_count(self) -> None:
        """
        Fifteen or seventeen bytes are no key.
        """
        self.assertIsNone(decode_key("|".join(["1"] * 15)))
        self.assertIsNone(decode_key("|".join(["1"] * 17)))
        self.assertIsNone(decode_key(""))

    def test_out_of_range(self) -> None:
        """
        A number that is no byte makes it no key.
        """
        for part in ("-129", "256", "1" * 5000):
            self.assertIsNone(decode_key("|".join(["1"] * 15 + [part])))

    def test_ends_of_the_range(self) -> None:
        """
        The least signed and the greatest unsigned byte are bytes.
        """
        for part, byte in (("-128", 0x80), ("127", 0x7F), ("255", 0xFF)):
            key = decode_key("|".join(["1"] * 15 + [part]))
            self.assertEqual(key, bytes([1] * 15 + [byte]))

    def test_no_number(self) -> None:
        """
        Anything but numbers makes it no key.
        """
        for part in ("", "x", "1.0", "0x1"):
            self.assertIsNone(decode_key("|".join(["1"] * 15 + [part])))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text gives sixteen bytes or nothing.
        """
        self.assertIn(len(decode_key(text) or bytes(16)), {16})


class RecordTests(SynchronousTestCase):
    """
    The record stored under a session id (protocol 7.5).
    """

    def record(
        self,
        os_name: str | None = "android",
        os_version: str | None = "10",
        client_version: str | None = "1.0",
        device_id: str = "dev-1",
    ) -> SessionRecord:
        return SessionRecord(
            os_name, os_version, client_version, device_id, AesCipher(KEY, IV)
        )

    def test_text(self) -> None:
        """
        The text is that of the original: both kinds of nodes read it.
        """
        self.assertEqual(self.record().encode(), WHOLE)

    def test_read(self) -> None:
        """
        A stored text gives the device and the cipher back.
        """
        record = SessionRecord.decode(WHOLE)
        assert record is not None
        self.assertEqual(record[:4], ("android", "10", "1.0", "dev-1"))
        self.assertEqual((record.cipher.key, record.cipher.iv), (KEY, IV))

    def test_absent_fields(self) -> None:
        """
        Absent texts are written as the word null and read as absent (D11).
        """
        text = self.record(None, None, None).encode()
        self.assertEqual(text, f"null,null,null,dev-1,{KEY_TEXT},{IV_TEXT}")
        assert text is not None
        record = SessionRecord.decode(text)
        assert record is not None
        self.assertEqual(record[:3], (None, None, None))

    def test_device_called_null(self) -> None:
        """
        A device may be called null.
        """
        text = self.record(device_id="null").encode()
        assert text is not None
        record = SessionRecord.decode(text)
        assert record is not None
        self.assertEqual(record.device_id, "null")

    def test_commas(self) -> None:
        """
        Commas in the describing texts become blanks, so that the record can be read.
        """
        text = self.record("i,OS", "1,2", "3,4").encode()
        self.assertEqual(text, f"i OS,1 2,3 4,dev-1,{KEY_TEXT},{IV_TEXT}")

    def test_comma_in_the_device(self) -> None:
        """
        A device id with a comma cannot be stored: it shakes hands each time.
        """
        self.assertIsNone(self.record(device_id="dev,1").encode())

    def test_broken_records(self) -> None:
        """
        What is not a whole record counts as an expired session.
        """
        for text in (
            "",
            "null",
            "{}",
            WHOLE + ",more",
            WHOLE.partition(",")[2],
            WHOLE[: -len(IV_TEXT)],
            WHOLE[:-3],
            WHOLE.replace("112", "x"),
            WHOLE.replace("-128", "-129"),
        ):
            self.assertIsNone(SessionRecord.decode(text), text)

    @given(
        maybe_text,
        maybe_text,
        maybe_text,
        st.text(min_size=1),
        sixteen_bytes,
        sixteen_bytes,
    )
    def test_round_trip(
        self,
        os_name: str | None,
        os_version: str | None,
        client_version: str | None,
        device_id: str,
        key: bytes,
        iv: bytes,
    ) -> None:
        """
        Every record that can be stored is read back, but for commas.
        """
        written = SessionRecord(
            os_name, os_version, client_version, device_id, AesCipher(key, iv)
        ).encode()
        if "," in device_id:
            self.assertIsNone(written)
            return
        assert written is not None
        read = SessionRecord.decode(written)
        assert read is not None
        self.assertEqual(
            read[:4],
            (
                *(
                    None if text is None else text.replace(",", " ")
                    for text in (os_name, os_version, client_version)
                ),
                device_id,
            ),
        )
        self.assertEqual((read.cipher.key, read.cipher.iv), (key, iv))

    @given(st.text() | st.text(alphabet=",|-019n", max_size=80))
    def test_any_text(self, text: str) -> None:
        """
        Any text gives a record or nothing.
        """
        self.assertIsInstance(SessionRecord.decode(text), (SessionRecord, type(None)))

    def test_repr(self) -> None:
        """
        A record in a log does not show its key.
        """
        rendered = repr(self.record())
        for secret in (KEY_TEXT, IV_TEXT, repr(KEY), KEY.hex(), repr(IV), IV.hex()):
            self.assertNotIn(secret, rendered)
