"""
Tests of keys and ciphers: L{mpush_tw.protocol.crypto}.
"""

from __future__ import annotations

import base64
import json
import textwrap
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.errors import ProtocolError
from mpush_tw.protocol.crypto import (
    AES_KEY_LENGTH,
    AesCipher,
    KeyTextError,
    RsaPrivateKey,
    RsaPublicKey,
    mix_session_key,
    random_key,
)
from tests.protocol.strategies import sixteen_bytes, spoiled

_KEYS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "transcripts.json").read_text()
)["keys"]
SAMPLE_PRIVATE: str = _KEYS["rsaPrivateKeyBase64"]
SAMPLE_PUBLIC: str = _KEYS["rsaPublicKeyBase64"]
REFUSED = "the body cannot be decrypted"


@cache
def sample() -> RsaPrivateKey:
    """
    The pair that the original publishes: 1024 bits, without CRT members.
    """
    return RsaPrivateKey.load(SAMPLE_PRIVATE, RsaPublicKey.load(SAMPLE_PUBLIC))


@cache
def own() -> RsaPrivateKey:
    """
    A pair of ours: 2048 bits.
    """
    return RsaPrivateKey.generate()


def der(tag: int, *parts: bytes) -> bytes:
    """
    Write one DER element.
    """
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    if size < 256:
        return bytes([tag, 0x81, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2) + content


def der_int(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


RSA_ALGORITHM = der(0x30, bytes.fromhex("06092a864886f70d0101010500"))


def pkcs8(*numbers: int) -> bytes:
    """
    Write a private key from its eight numbers n, e, d, p, q, dP, dQ, qInv.
    """
    inner = der(0x30, der_int(0), *map(der_int, numbers))
    return der(0x30, der_int(0), RSA_ALGORITHM, der(0x04, inner))


def spki(modulus: int, exponent: int) -> bytes:
    """
    Write a public key.
    """
    inner = der(0x30, der_int(modulus), der_int(exponent))
    return der(0x30, RSA_ALGORITHM, der(0x03, b"\0", inner))


def private_numbers(key: RsaPrivateKey) -> rsa.RSAPrivateNumbers:
    loaded = serialization.load_pem_private_key(key.pem(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return loaded.private_numbers()


class AesTests(SynchronousTestCase):
    """
    The session cipher (protocol 7.1).
    """

    def setUp(self) -> None:
        self.cipher = AesCipher(bytes(range(16)), bytes(range(16, 32)))

    @given(sixteen_bytes, sixteen_bytes, st.binary(max_size=100))
    def test_round_trip(self, key: bytes, iv: bytes, plain: bytes) -> None:
        """
        Every body under every key comes back as it was.
        """
        cipher = AesCipher(key, iv)
        self.assertEqual(AesCipher(key, iv).decrypt(cipher.encrypt(plain)), plain)

    def test_sizes(self) -> None:
        """
        The padding always adds something: a whole block to a multiple of 16.
        """
        sizes = [len(self.cipher.encrypt(bytes(n))) for n in (0, 1, 15, 16, 17, 32)]
        self.assertEqual(sizes, [16, 16, 16, 32, 32, 48])

    def test_each_message_starts_anew(self) -> None:
        """
        The same body gives the same bytes each time: iv and key are fixed.
        """
        first, second = self.cipher.encrypt(b"abc"), self.cipher.encrypt(b"abc")
        self.assertEqual(first, second)

    def test_wrong_size(self) -> None:
        """
        What is not a number of whole blocks is refused.
        """
        for size in (0, 1, 15, 17, 31):
            error = self.assertRaises(ProtocolError, self.cipher.decrypt, bytes(size))
            self.assertEqual(str(error), REFUSED)

    def test_wrong_padding(self) -> None:
        """
        Every padding that is none is refused, with the text of all refusals.
        """
        raw = AesCipher(self.cipher.key, self.cipher.iv)
        for tail in (b"\0", b"\x11", b"\xff", b"\x01\x02", b"\x02\x03\x03", b"\x10"):
            block = bytes(16 - len(tail)) + tail
            sealed = raw.encrypt(block)[:16]
            error = self.assertRaises(ProtocolError, self.cipher.decrypt, sealed)
            self.assertEqual(str(error), REFUSED)

    def test_every_padding(self) -> None:
        """
        The paddings of one to sixteen bytes are all taken off.
        """
        for count in range(1, 17):
            block = bytes([0xAA]) * (16 - count) + bytes([count]) * count
            sealed = self.cipher.encrypt(block)[:16]
            self.assertEqual(self.cipher.decrypt(sealed), b"\xaa" * (16 - count))

    @given(st.binary(max_size=80))
    def test_bytes_or_refusal(self, sealed: bytes) -> None:
        """
        Any bytes are decrypted or refused with the one text.
        """
        try:
            plain = self.cipher.decrypt(sealed)
        except ProtocolError as error:
            self.assertEqual(str(error), REFUSED)
        else:
            self.assertLess(len(plain), len(sealed))

    def test_repr(self) -> None:
        """
        A cipher in a log shows neither key nor iv.
        """
        self.assertEqual(repr(self.cipher), "<AesCipher>")


class SessionKeyTests(SynchronousTestCase):
    """
    How the session key comes about (protocol 7.2).
    """

    @given(sixteen_bytes, sixteen_bytes)
    def test_exclusive_or(self, client_key: bytes, server_key: bytes) -> None:
        """
        The session key is the exclusive or of both halves, byte by byte.
        """
        self.assertEqual(
            mix_session_key(client_key, server_key),
            bytes(a ^ b for a, b in zip(client_key, server_key, strict=True)),
        )

    def test_wrong_length(self) -> None:
        """
        A half of another length is refused: with an empty one the session key would be
        the other half.
        """
        for size in (0, 15, 17, 32):
            self.assertRaises(ProtocolError, mix_session_key, bytes(16), bytes(size))
            self.assertRaises(ProtocolError, mix_session_key, bytes(size), bytes(16))

    def test_random_keys(self) -> None:
        """
        Random keys have sixteen bytes and differ.
        """
        keys = {random_key() for _ in range(100)}
        self.assertEqual((len(keys), {len(key) for key in keys}), (100, {16}))
        self.assertEqual(AES_KEY_LENGTH, 16)


class RsaTests(SynchronousTestCase):
    """
    The cipher of the handshake (protocol 6).
    """

    def test_chunks(self) -> None:
        """
        With 1024 bits 117 bytes make one block, 118 make two.
        """
        sizes = [
            len(sample().public.encrypt(bytes(n))) for n in (1, 117, 118, 234, 235)
        ]
        self.assertEqual(sizes, [128, 128, 256, 256, 384])

    def test_chunks_of_a_longer_key(self) -> None:
        """
        With 2048 bits a block takes 245 bytes.
        """
        sizes = [len(own().public.encrypt(bytes(n))) for n in (1, 245, 246)]
        self.assertEqual(sizes, [256, 256, 512])

    def test_chunks_of_an_odd_key(self) -> None:
        """
        A modulus that needs one bit of another byte has a byte more.
        """
        odd = RsaPublicKey.load(spki((1 << 1025) - 1, 65537))
        sizes = [len(odd.encrypt(bytes(n))) for n in (117, 118, 119)]
        self.assertEqual(sizes, [129, 129, 258])

    def test_round_trip(self) -> None:
        """
        Bodies of one block, of its exact size, and of several come back whole.
        """
        for key, sizes in ((sample(), (1, 117, 118, 500)), (own(), (1, 245, 246, 500))):
            for size in sizes:
                plain = bytes(n & 0xFF for n in range(size))
                self.assertEqual(key.decrypt(key.public.encrypt(plain)), plain)

    def test_private_half_encrypts_with_the_public_one(self) -> None:
        """
        What the server sends before the handshake is encrypted with the public key.
        """
        self.assertEqual(sample().decrypt(sample().encrypt(b"abc")), b"abc")

    def test_standard_padding(self) -> None:
        """
        A block is PKCS#1 v1.5 as any other library makes it.
        """
        public = serialization.load_der_public_key(base64.b64decode(SAMPLE_PUBLIC))
        assert isinstance(public, rsa.RSAPublicKey)
        sealed = public.encrypt(b"abc", padding.PKCS1v15())
        self.assertEqual(sample().decrypt(sealed), b"abc")

    def test_refusals_are_alike(self) -> None:
        """
        Wrong sizes and numbers beyond the modulus are refused with one text.
        """
        good = sample().public.encrypt(b"abc")
        for sealed in (
            b"",
            b"a",
            good[:-1],
            good + b"\0",
            b"\xff" * 128,
            good + b"\xff" * 128,
            b"\xff" * 128 + good,
            b"\xff" * 256,
            bytes(128),
        ):
            try:
                sample().decrypt(sealed)
            except ProtocolError as error:
                self.assertEqual(str(error), REFUSED)
                self.assertIsNone(error.__cause__)
            else:
                # A library with implicit rejection makes bytes up instead of
                # telling that the padding is wrong (protocol 6.2).
                self.assertEqual(sealed, bytes(128))

    @given(st.sampled_from([3, 117, 118]), st.data())
    @settings(max_examples=50)
    def test_bytes_or_refusal(self, size: int, data: st.DataObject) -> None:
        """
        Any bytes are decrypted to fewer bytes or refused with the one text.
        """
        sealed = data.draw(spoiled(st.just(sample().public.encrypt(bytes(size)))))
        try:
            plain = sample().decrypt(sealed)
        except ProtocolError as error:
            self.assertEqual(str(error), REFUSED)
        else:
            self.assertLessEqual(len(plain), len(sealed) // 128 * 117)

    def test_most_blocks(self) -> None:
        """
        Twelve blocks are decrypted for one body, a thirteenth is not worth the work: it
        is refused with the text of all refusals.
        """
        for key, chunk in ((sample(), 117), (own(), 245)):
            plain = bytes(12 * chunk)
            sealed = key.public.encrypt(plain)
            self.assertEqual(key.decrypt(sealed), plain)
            error = self.assertRaises(
                ProtocolError, key.decrypt, sealed + key.public.encrypt(b"a")
            )
            self.assertEqual(str(error), REFUSED)

    def test_foreign_block(self) -> None:
        """
        A block for another key never gives the body it was made from.
        """
        other = RsaPrivateKey.generate(1024)
        plain = b"deviceId and a client key"
        try:
            opened = sample().decrypt(other.public.encrypt(plain))
        except ProtocolError as error:
            self.assertEqual(str(error), REFUSED)
        else:
            self.assertNotEqual(opened, plain)

    def test_repr(self) -> None:
        """
        A private key in a log shows its size and nothing else.
        """
        self.assertEqual(repr(own()), "<RsaPrivateKey of 2048 bits>")


class KeyTextTests(SynchronousTestCase):
    """
    Keys as operators and clients have them (protocol 6.1).
    """

    def assert_same(self, text: str | bytes) -> None:
        """
        Load a text as a private key and compare it with ours.
        """
        self.assertEqual(
            private_numbers(RsaPrivateKey.load(text)), private_numbers(own())
        )

    def test_one_line(self) -> None:
        """
        The text that a key writes is the text that loads it.
        """
        self.assert_same(own().text())
        public = RsaPublicKey.load(own().public.text())
        self.assertEqual(public.modulus, own().public.modulus)
        self.assertEqual((public.bits, public.exponent), (2048, 65537))

    def test_armour(self) -> None:
        """
        PEM files are read, as bytes and as text.
        """
        self.assert_same(own().pem())
        self.assert_same(own().pem().decode())
        public = RsaPublicKey.load(own().public.pem())
        self.assertEqual(public.modulus, own().public.modulus)

    def test_armour_of_windows(self) -> None:
        """
        PEM with carriage returns is read.
        """
        self.assert_same(own().pem().replace(b"\n", b"\r\n"))

    def test_white_space(self) -> None:
        """
        Blanks, tabs and line breaks anywhere do no harm.
        """
        lines = textwrap.wrap(own().text(), 50)
        self.assert_same("\n\t " + " \r\n  ".join(lines) + " \n")

    def test_missing_padding(self) -> None:
        """
        The equals signs at the end may be missing.
        """
        stripped = [own().text().rstrip("="), SAMPLE_PRIVATE.rstrip("=")]
        self.assert_same(stripped[0])
        self.assertTrue(RsaPrivateKey.load(stripped[1]).is_sample)
        self.assertNotEqual(stripped, [own().text(), SAMPLE_PRIVATE])

    def test_missing_padding_of_every_length(self) -> None:
        """
        So it is whether none, one or two of them were there.
        """
        missing = []
        for bits in (1024, 1040, 1032):
            whole = base64.b64encode(spki((1 << bits) - 1, 65537)).decode()
            text = whole.rstrip("=")
            missing.append(len(whole) - len(text))
            self.assertEqual(RsaPublicKey.load(text).bits, bits)
        self.assertEqual(missing, [0, 1, 2])

    def test_der(self) -> None:
        """
        DER is read as it is.
        """
        self.assert_same(base64.b64decode(own().text()))
        public = RsaPublicKey.load(base64.b64decode(own().public.text()))
        self.assertEqual(public.modulus, own().public.modulus)

    def test_url_safe_alphabet(self) -> None:
        """
        The URL-safe alphabet is not Base64 here.
        """
        text = own().text().replace("+", "-").replace("/", "_")
        self.assertNotEqual(text, own().text())
        self.assertRaises(KeyTextError, RsaPrivateKey.load, text)

    def test_foreign_characters(self) -> None:
        """
        A character that is none of Base64 spoils a key; it is not passed over.
        """
        text = own().text()
        self.assertRaises(KeyTextError, RsaPrivateKey.load, f"{text[:50]}!{text[50:]}")
        self.assertRaises(KeyTextError, RsaPublicKey.load, f"*{own().public.text()}")

    def test_wrong_kind(self) -> None:
        """
        A public key is no private one, nor the other way round.
        """
        self.assertRaises(KeyTextError, RsaPrivateKey.load, own().public.text())
        self.assertRaises(KeyTextError, RsaPublicKey.load, own().text())

    def test_pkcs1(self) -> None:
        """
        The older form of private keys is refused.
        """
        loaded = serialization.load_pem_private_key(own().pem(), None)
        text = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        self.assertRaises(KeyTextError, RsaPrivateKey.load, text)

    def test_encrypted(self) -> None:
        """
        A key under a pass phrase is refused.
        """
        loaded = serialization.load_pem_private_key(own().pem(), None)
        text = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pass"),
        )
        self.assertRaises(KeyTextError, RsaPrivateKey.load, text)

    def test_another_algorithm(self) -> None:
        """
        Keys that are not RSA are refused.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.assertRaises(KeyTextError, RsaPrivateKey.load, private)
        error = self.assertRaises(KeyTextError, RsaPublicKey.load, public)
        self.assertEqual(str(error), "a public key, but not an RSA one")

    def test_no_key_at_all(self) -> None:
        """
        Empty and foreign texts are refused.
        """
        for text in ("", " ", "x", "key", "ключ", "\0", "-----BEGIN-----", b"", b"0"):
            self.assertRaises(KeyTextError, RsaPrivateKey.load, text)
            self.assertRaises(KeyTextError, RsaPublicKey.load, text)

    def test_too_small(self) -> None:
        """
        Keys that could not even hold the padding are refused with their size.
        """
        error = self.assertRaises(KeyTextError, RsaPublicKey.load, spki(2**80 + 1, 3))
        self.assertEqual(str(error), "an RSA key of 81 bits; 512 is the least")
        self.assertRaises(
            KeyTextError, RsaPrivateKey.load, pkcs8(35, 5, 5, 0, 0, 0, 0, 0)
        )

    @given(spoiled(st.just(base64.b64decode(SAMPLE_PRIVATE))))
    def test_any_private_der(self, data: bytes) -> None:
        """
        A spoiled private key loads or is refused; the text never holds any of it.
        """
        try:
            RsaPrivateKey.load(data)
        except KeyTextError as error:
            self.assertTrue(str(error).isascii() and len(str(error)) < 60)

    @given(spoiled(st.just(base64.b64decode(SAMPLE_PUBLIC))))
    def test_any_public_der(self, data: bytes) -> None:
        """
        A spoiled public key loads or is refused.
        """
        try:
            RsaPublicKey.load(data)
        except KeyTextError as error:
            self.assertTrue(str(error).isascii() and len(str(error)) < 60)

    @given(spoiled(st.just(SAMPLE_PRIVATE.encode())))
    def test_refusals_keep_the_secret(self, data: bytes) -> None:
        """
        No eight characters of a private key's text appear in what is raised (D7).
        """
        try:
            RsaPrivateKey.load(data)
        except KeyTextError as error:
            told = f"{error!r} {error}"
            for start in range(len(data) - 8):
                self.assertNotIn(data[start : start + 8].decode("latin-1"), told)
            self.assertTrue(error.__suppress_context__ or error.__context__ is None)


class SampleKeyTests(SynchronousTestCase):
    """
    Keys without CRT members, as the published sample (protocol 6.2).
    """

    def test_completed(self) -> None:
        """
        The missing numbers are computed, and fit.
        """
        numbers = private_numbers(sample())
        self.assertEqual(numbers.p * numbers.q, sample().public.modulus)
        self.assertEqual(numbers.public_numbers.e, 65537)
        self.assertEqual(sample().bits, 1024)

    def test_written_as_a_whole(self) -> None:
        """
        A completed key is written with all its numbers.
        """
        again = RsaPrivateKey.load(sample().text())
        self.assertEqual(private_numbers(again), private_numbers(sample()))

    def test_any_member_missing(self) -> None:
        """
        A single zero among exponent, primes and CRT members has all of them computed.
        """
        whole = private_numbers(sample())
        numbers = [
            whole.public_numbers.n,
            whole.public_numbers.e,
            whole.d,
            whole.p,
            whole.q,
            whole.dmp1,
            whole.dmq1,
            whole.iqmp,
        ]
        for at in (1, 3, 4, 5, 6, 7):
            bare = [0 if n == at else value for n, value in enumerate(numbers)]
            self.assertEqual(private_numbers(RsaPrivateKey.load(pkcs8(*bare))), whole)

    def test_other_structure(self) -> None:
        """
        The same numbers in anything but sequences are no key.
        """
        whole = pkcs8(sample().public.modulus, 0, private_numbers(sample()).d, *[0] * 5)
        self.assertTrue(RsaPrivateKey.load(whole).is_sample)
        text = base64.b64encode(b"\x31" + whole[1:]).decode()
        error = self.assertRaises(KeyTextError, RsaPrivateKey.load, text)
        self.assertEqual(str(error), "not an RSA private key (Base64 of PKCS#8 DER)")

    def test_without_a_public_key(self) -> None:
        """
        It loads alone as well: the usual exponent is tried.
        """
        self.assertTrue(RsaPrivateKey.load(SAMPLE_PRIVATE).is_sample)

    def test_recognised(self) -> None:
        """
        Both halves of the sample are recognised, other keys are not taken for it.
        """
        self.assertTrue(RsaPublicKey.load(SAMPLE_PUBLIC).is_sample)
        self.assertFalse(own().is_sample)
        self.assertFalse(own().public.is_sample)

    def test_another_exponent(self) -> None:
        """
        The exponent of the configured public key is used where the private key has
        none.
        """
        made = rsa.generate_private_key(3, 1024)
        numbers = made.private_numbers()
        modulus = numbers.public_numbers.n
        bare = pkcs8(modulus, 0, numbers.d, 0, 0, 0, 0, 0)
        public = RsaPublicKey.load(spki(modulus, 3))
        key = RsaPrivateKey.load(bare, public)
        self.assertEqual(key.decrypt(public.encrypt(b"abc")), b"abc")
        self.assertRaises(KeyTextError, RsaPrivateKey.load, bare)

    def test_numbers_that_do_not_fit(self) -> None:
        """
        Numbers that make no key are refused, and at once.
        """
        modulus = sample().public.modulus
        for numbers in (
            (modulus, 0, 0),
            (modulus, 0, 1),
            (modulus, 1, 1),
            (modulus, 65537, 12345),
            (modulus + 2, 65537, private_numbers(sample()).d),
            (0, 0, 0),
            (0, 65537, 7),
            (1, 65537, 7),
            (1 << 1023, 65537, 7),
        ):
            error = self.assertRaises(
                KeyTextError, RsaPrivateKey.load, pkcs8(*numbers, 0, 0, 0, 0, 0)
            )
            self.assertEqual(str(error), "an RSA private key whose numbers do not fit")

    def test_crt_members_that_do_not_fit(self) -> None:
        """
        A key whose primes belong to another modulus is refused.
        """
        mine, other = private_numbers(sample()), private_numbers(own())
        spoiled_key = pkcs8(
            sample().public.modulus,
            65537,
            mine.d,
            other.p,
            other.q,
            mine.dmp1,
            mine.dmq1,
            mine.iqmp,
        )
        self.assertRaises(KeyTextError, RsaPrivateKey.load, spoiled_key)


class PairTests(SynchronousTestCase):
    """
    A private and a public key that should belong together.
    """

    def test_belonging(self) -> None:
        """
        A pair loads.
        """
        key = RsaPrivateKey.load(own().text(), own().public)
        self.assertEqual(key.bits, 2048)

    def test_another_modulus(self) -> None:
        """
        The public key of another pair is refused.
        """
        error = self.assertRaises(
            KeyTextError, RsaPrivateKey.load, own().text(), sample().public
        )
        self.assertEqual(
            str(error), "the private key does not belong to the public key"
        )

    def test_another_modulus_of_a_bare_key(self) -> None:
        """
        So it is for keys without CRT members.
        """
        self.assertRaises(
            KeyTextError, RsaPrivateKey.load, SAMPLE_PRIVATE, own().public
        )

    def test_another_exponent(self) -> None:
        """
        The same modulus with another exponent is another key: clients that embed it
        could never be understood.
        """
        public = RsaPublicKey.load(spki(own().public.modulus, 3))
        error = self.assertRaises(
            KeyTextError, RsaPrivateKey.load, own().text(), public
        )
        self.assertEqual(
            str(error), "the private key does not belong to the public key"
        )
