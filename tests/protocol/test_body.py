"""
Tests of a body's way to the wire and back: L{mpush_tw.protocol.body}.
"""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.body import (
    DEFAULT_MAX_INFLATED,
    Cipher,
    inflate,
    open_body,
    seal_body,
)
from mpush_tw.protocol.crypto import AesCipher
from tests.protocol.strategies import spoiled

AES = AesCipher(bytes(range(16)), bytes(range(32, 48)))
ZIPPED = zlib.compress(b"hello mpush " * 20)


def bomb(size: int, wrapper: int = zlib.MAX_WBITS) -> bytes:
    """
    Compress C{size} zero bytes without holding them.
    """
    machine = zlib.compressobj(wbits=wrapper)
    block = bytes(1 << 16)
    parts = [machine.compress(block) for _ in range(size >> 16)]
    return b"".join(parts) + machine.flush()


class SealingTests(SynchronousTestCase):
    """
    Bodies on their way out (protocol 5.1).
    """

    def test_empty(self) -> None:
        """
        An empty body stays empty: no flag, no padding block.
        """
        self.assertEqual(seal_body(b"", AES), (0, b""))

    def test_clear(self) -> None:
        """
        Without a cipher a short body goes as it is.
        """
        self.assertEqual(seal_body(b"abc", None), (0, b"abc"))

    def test_encrypted(self) -> None:
        """
        With a cipher the body is encrypted and says so.
        """
        self.assertEqual(seal_body(b"abc", AES), (1, AES.encrypt(b"abc")))

    def test_threshold(self) -> None:
        """
        10240 bytes are not compressed, 10241 are.
        """
        self.assertEqual(seal_body(b"a" * 10240, None)[0], 0)
        self.assertEqual(seal_body(b"a" * 10241, None)[0], 2)

    def test_compressed_before_encrypted(self) -> None:
        """
        A long body is compressed first: what is inside the encryption is zlib.
        """
        flags, sealed = seal_body(b"a" * 10241, AES)
        self.assertEqual(flags, 3)
        self.assertEqual(zlib.decompress(AES.decrypt(sealed)), b"a" * 10241)

    def test_own_threshold(self) -> None:
        """
        The threshold is the operator's to choose, and the result is used even when it
        is larger than the input.
        """
        flags, sealed = seal_body(b"ab", None, threshold=1)
        self.assertEqual((flags, len(sealed) > 2), (2, True))


class OpeningTests(SynchronousTestCase):
    """
    Bodies that come in (protocol 5.3).
    """

    @given(
        st.binary(max_size=300),
        st.sampled_from([None, AES]),
        st.integers(0, 200),
    )
    def test_round_trip(
        self, plain: bytes, cipher: Cipher | None, threshold: int
    ) -> None:
        """
        What was sealed is opened to the same bytes, by its flags alone.
        """
        flags, sealed = seal_body(plain, cipher, threshold)
        self.assertEqual(open_body(flags, sealed, cipher), plain)

    def test_clear_on_a_secured_connection(self) -> None:
        """
        A body without CRYPTO is taken as it is: clients rely on it.
        """
        self.assertEqual(open_body(0, b"abc", AES), b"abc")

    def test_crypto_without_a_cipher(self) -> None:
        """
        CRYPTO means nothing where there is no cipher, as on the gateway.
        """
        self.assertEqual(open_body(1, b"abc", None), b"abc")

    def test_empty_body_with_flags(self) -> None:
        """
        An empty body is empty whatever the flags say.
        """
        self.assertEqual(open_body(255, b"", AES), b"")

    def test_unknown_flags(self) -> None:
        """
        Flags that mean nothing, and ack flags, change nothing.
        """
        self.assertEqual(open_body(32 | 64 | 128 | 12, b"abc", AES), b"abc")

    def test_json_flag(self) -> None:
        """
        A binary body that claims to be JSON is refused.
        """
        self.assertRaises(ProtocolError, open_body, 16, b'{"userId":"u"}', None)

    def test_nothing_left(self) -> None:
        """
        A body that is empty once opened is an error.
        """
        self.assertRaises(ProtocolError, open_body, 1, AES.encrypt(b""), AES)
        self.assertRaises(ProtocolError, open_body, 2, zlib.compress(b""), None)

    def test_limit_through_encryption(self) -> None:
        """
        The bound on inflating holds inside the encryption as well.
        """
        sealed = AES.encrypt(zlib.compress(bytes(101)))
        self.assertEqual(open_body(3, sealed, AES, 101), bytes(101))
        self.assertRaises(ProtocolError, open_body, 3, sealed, AES, 100)

    @given(
        st.integers(0, 255),
        spoiled(
            st.sampled_from(
                [b"abc", ZIPPED, AES.encrypt(ZIPPED), AES.encrypt(b"a" * 40)]
            )
        )
        | st.binary(max_size=64),
        st.sampled_from([None, AES]),
    )
    def test_bytes_or_refusal(
        self, flags: int, body: bytes, cipher: Cipher | None
    ) -> None:
        """
        Any body under any flags is opened or refused with L{ProtocolError}.
        """
        try:
            plain = open_body(flags, body, cipher, 100)
        except ProtocolError:
            return
        self.assertLessEqual(len(plain), max(100, len(body)))


class InflatingTests(SynchronousTestCase):
    """
    Compressed bodies (protocol 5.4).
    """

    def test_zlib(self) -> None:
        """
        A zlib stream is read.
        """
        self.assertEqual(inflate(ZIPPED, 1000), b"hello mpush " * 20)

    def test_gzip(self) -> None:
        """
        A gzip stream is read too: the iOS clients send it.
        """
        self.assertEqual(inflate(gzip.compress(b"hello"), 1000), b"hello")

    def test_raw_deflate(self) -> None:
        """
        Raw deflate data, without a header, is refused.
        """
        machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        raw = machine.compress(b"hello") + machine.flush()
        self.assertRaises(ProtocolError, inflate, raw, 1000)

    def test_bytes_behind_the_stream(self) -> None:
        """
        Bytes behind the end of the stream are ignored.
        """
        self.assertEqual(inflate(zlib.compress(b"a") + b"rest", 1000), b"a")
        self.assertEqual(inflate(gzip.compress(b"a") + b"rest", 1000), b"a")

    def test_cut_short(self) -> None:
        """
        Every stream that lost its end is refused, its check sum included.
        """
        for whole in (ZIPPED, gzip.compress(b"hello")):
            for size in range(len(whole)):
                self.assertRaises(ProtocolError, inflate, whole[:size], 1000)

    def test_wrong_check_sum(self) -> None:
        """
        A stream whose check sum is wrong is refused.
        """
        broken = ZIPPED[:-1] + bytes([ZIPPED[-1] ^ 1])
        self.assertRaises(ProtocolError, inflate, broken, 1000)

    def test_dictionary(self) -> None:
        """
        A stream that wants a preset dictionary is refused.
        """
        machine = zlib.compressobj(zdict=b"hello")
        wanting = machine.compress(b"hello") + machine.flush()
        self.assertRaises(ProtocolError, inflate, wanting, 1000)

    def test_exact_limit(self) -> None:
        """
        The limit itself passes, one byte more does not.
        """
        for pack in (zlib.compress, gzip.compress):
            self.assertEqual(len(inflate(pack(bytes(5000)), 5000)), 5000)
            self.assertRaises(ProtocolError, inflate, pack(bytes(5001)), 5000)

    def test_default_limit(self) -> None:
        """
        By default a body may grow to one mebibyte.
        """
        self.assertEqual(DEFAULT_MAX_INFLATED, 1024 * 1024)
        plain = open_body(2, bomb(1 << 20), None)
        self.assertEqual(len(plain), 1 << 20)
        self.assertRaises(ProtocolError, open_body, 2, bomb((1 << 20) + 65536), None)

    def assert_bounded(self, packed: bytes) -> None:
        """
        Inflate a bomb and look at the memory that was used.
        """
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        error = self.assertRaises(ProtocolError, inflate, packed, 1 << 18)
        _, peak = tracemalloc.get_traced_memory()
        self.assertEqual(str(error), "the body inflates to more than 262144 bytes")
        self.assertLess(peak, 1 << 20)

    def test_bomb(self) -> None:
        """
        A packet that would inflate to 16 MiB never takes more than about its limit.
        """
        packed = bomb(1 << 24)
        self.assertLess(len(packed), 20_000)
        self.assert_bounded(packed)

    def test_gzip_bomb(self) -> None:
        """
        The same in gzip's clothes.
        """
        self.assert_bounded(bomb(1 << 24, 16 + zlib.MAX_WBITS))

    @given(st.binary(max_size=60) | spoiled(st.just(ZIPPED)))
    def test_bytes_or_refusal(self, data: bytes) -> None:
        """
        Any bytes are inflated within the limit or refused.
        """
        try:
            plain = inflate(data, 300)
        except ProtocolError:
            return
        self.assertLessEqual(len(plain), 300)
