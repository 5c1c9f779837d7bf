"""
Keys: RSA for the handshake, AES for the session, and how the session key comes about.

Where the rules are: protocol 6 and 7. The algorithms come from C{cryptography}; what is
ours is the chunking, the repair of key pairs without CRT members, and the key mix.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpush_tw.errors import ProtocolError

AES_KEY_LENGTH: Final = 16
"""
Bytes of client key, server key, session key and iv. The original's
C{aes-key-length} admits no other value in practice (protocol 7.1).
"""

_BLOCK = 16
_PADDINGS = [bytes([_BLOCK - n]) * (_BLOCK - n) for n in range(_BLOCK)]
_MIN_RSA_BITS = 512
_REFUSED = "the body cannot be decrypted"
_MAX_RSA_BLOCKS = 12
"""
Most blocks that are decrypted for one body. A handshake has one to four; more than
this only keeps the processor busy.
"""
_PKCS1V15 = padding.PKCS1v15()
_SAMPLE_MODULUS = int(
    "a084f0960a86c6f274c3db88eec1255ab5a5bb895891c5c4e47b2fc1efdd9564486e1e342f03"
    "7700260c762eff069d7f0d2284a166da028370b1e9e72cf9510f0f67c1720d8be092bbc65746"
    "a4e27738d100c95b0b3adb5766d357bf20d94628e212b4002cc4e8adc822efd339b955fdfe33"
    "2fd8681bd9701e66194b0f6f1f1f",
    16,
)


class KeyTextError(ValueError):
    """
    A key text cannot be read. The message never holds any of it (defect D7).

    Raised by L{RsaPrivateKey.load} and L{RsaPublicKey.load}; the caller knows which
    setting the text came from and names it.
    """


class AesCipher:
    """
    AES-128-CBC with PKCS#7 padding under one key and one iv (protocol 7.1).

    Every message starts again from the same iv: a property of the protocol
    (D17). The library's cipher object is made on the first encryption and kept, so that
    a session that only ever listens costs two byte strings.
    """

    __slots__ = ("_encryptors", "iv", "key")

    def __init__(self, key: bytes, iv: bytes) -> None:
        """
        @param key: 16 bytes.
        @param iv: 16 bytes.
        """
        self.key = key
        self.iv = iv
        self._encryptors: Cipher[modes.CBC] | None = None

    def encrypt(self, plain: bytes) -> bytes:
        encryptors = self._encryptors
        if encryptors is None:
            encryptors = self._encryptors = Cipher(
                algorithms.AES(self.key), modes.CBC(self.iv)
            )
        return encryptors.encryptor().update(plain + _PADDINGS[len(plain) % _BLOCK])

    def decrypt(self, sealed: bytes) -> bytes:
        """
        @raise ProtocolError: If the size or the padding is wrong.
        """
        if not sealed or len(sealed) % _BLOCK:
            raise ProtocolError(_REFUSED)
        padded = (
            Cipher(algorithms.AES(self.key), modes.CBC(self.iv))
            .decryptor()
            .update(sealed)
        )
        count = padded[-1]
        if not 1 <= count <= _BLOCK or padded[-count:] != _PADDINGS[-count % _BLOCK]:
            raise ProtocolError(_REFUSED)
        return padded[:-count]

    def __repr__(self) -> str:
        return "<AesCipher>"


def mix_session_key(client_key: bytes, server_key: bytes) -> bytes:
    """
    Combine the two halves of a session key: exclusive or (protocol 7.2).

    @param client_key: 16 bytes.
    @param server_key: 16 bytes.
    @raise ProtocolError: If either has another length; one of them is the peer's, and
        with nothing mixed in the other would be the session key.
    """
    if len(client_key) != AES_KEY_LENGTH or len(server_key) != AES_KEY_LENGTH:
        raise ProtocolError(f"a key is not {AES_KEY_LENGTH} bytes long")
    mixed = int.from_bytes(client_key) ^ int.from_bytes(server_key)
    return mixed.to_bytes(AES_KEY_LENGTH)


def random_key() -> bytes:
    """
    Draw 16 bytes for a key or an iv from the system's secure source.
    """
    return os.urandom(AES_KEY_LENGTH)


class RsaPublicKey:
    """
    The server's public key as clients embed it: encrypts HANDSHAKE bodies.
    """

    __slots__ = ("_chunk", "_key")

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        self._key = key
        self._chunk = (key.key_size + 7) // 8 - 11

    @classmethod
    def load(cls, text: str | bytes) -> RsaPublicKey:
        """
        Read Base64 of the SubjectPublicKeyInfo, with or without PEM armour, or its DER.

        @raise KeyTextError: If it is anything else.
        """
        try:
            key = serialization.load_der_public_key(_der(text))
        except (ValueError, UnsupportedAlgorithm):
            raise KeyTextError("not an RSA public key (Base64 of X.509 DER)") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyTextError("a public key, but not an RSA one")
        _check_size(key.key_size)
        return cls(key)

    @property
    def bits(self) -> int:
        return self._key.key_size

    @property
    def modulus(self) -> int:
        return self._key.public_numbers().n

    @property
    def exponent(self) -> int:
        return self._key.public_numbers().e

    @property
    def is_sample(self) -> bool:
        """
        Whether this belongs to the pair that the original publishes (O-2).
        """
        return self.modulus == _SAMPLE_MODULUS

    def encrypt(self, plain: bytes) -> bytes:
        """
        Encrypt with PKCS#1 v1.5, in chunks of the key size less 11 (protocol 6).
        """
        chunk = self._chunk
        return b"".join(
            self._key.encrypt(plain[start : start + chunk], _PKCS1V15)
            for start in range(0, len(plain), chunk)
        )

    def text(self) -> str:
        """
        @return: The one line that goes into C{mp.security.public-key} and into clients.
        """
        return base64.b64encode(
            self._key.public_bytes(
                serialization.Encoding.DER,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
        ).decode()

    def pem(self) -> bytes:
        return self._key.public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )


class RsaPrivateKey:
    """
    The server's private key: decrypts HANDSHAKE bodies, and everything with CRYPTO that
    comes before the handshake (protocol 6).
    """

    __slots__ = ("_key", "_size", "public")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self._size = (key.key_size + 7) // 8
        self.public = RsaPublicKey(key.public_key())

    @classmethod
    def generate(cls, bits: int = 2048) -> RsaPrivateKey:
        """
        @param bits: Size of the modulus, at least 1024 (operations 10).
        """
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))

    @classmethod
    def load(
        cls, text: str | bytes, public: RsaPublicKey | None = None
    ) -> RsaPrivateKey:
        """
        Read Base64 of the unencrypted PKCS#8 form, with or without PEM armour, or DER.

        Keys that carry only modulus and private exponent, as the published sample does,
        are completed (protocol 6.2).

        @param public: The key that should belong to it, if one is configured.
        @raise KeyTextError: If it is anything else, or does not match C{public}.
        """
        key = cls(_load_private(_der(text), public.exponent if public else 65537))
        _check_size(key.bits)
        own = key.public
        if public is not None and (
            public.modulus != own.modulus or public.exponent != own.exponent
        ):
            raise KeyTextError("the private key does not belong to the public key")
        return key

    @property
    def bits(self) -> int:
        return self._key.key_size

    @property
    def is_sample(self) -> bool:
        return self.public.is_sample

    def encrypt(self, plain: bytes) -> bytes:
        """
        Encrypt with the public half, as the original does for answers before the
        handshake (D8).
        """
        return self.public.encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        """
        @raise ProtocolError: For every kind of failure, with one and the same text.
        """
        size = self._size
        if len(sealed) == size:
            try:
                return self._key.decrypt(sealed, _PKCS1V15)
            except ValueError:
                raise ProtocolError(_REFUSED) from None
        if not sealed or len(sealed) % size or len(sealed) > _MAX_RSA_BLOCKS * size:
            raise ProtocolError(_REFUSED)
        try:
            return b"".join(
                self._key.decrypt(sealed[start : start + size], _PKCS1V15)
                for start in range(0, len(sealed), size)
            )
        except ValueError:
            raise ProtocolError(_REFUSED) from None

    def text(self) -> str:
        """
        @return: The one line that goes into C{mp.security.private-key}.
        """
        return base64.b64encode(
            self._key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        ).decode()

    def pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"<RsaPrivateKey of {self.bits} bits>"


def _der(text: str | bytes) -> bytes:
    """
    Take PEM lines and white space away and decode Base64; DER passes as it is.
    """
    if isinstance(text, bytes):
        if text[:1] == b"\x30":
            return text
        text = text.decode("ascii", "replace")
    compact = re.sub(r"-----[^-]*-----|\s", "", text)
    compact += "=" * (-len(compact) % 4)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise KeyTextError("not Base64") from None


def _check_size(bits: int) -> None:
    """
    Refuse keys that the original's platform refuses too; far below that not even the
    padding of one block fits in.
    """
    if bits < _MIN_RSA_BITS:
        raise KeyTextError(f"an RSA key of {bits} bits; {_MIN_RSA_BITS} is the least")


def _load_private(der: bytes, exponent: int) -> rsa.RSAPrivateKey:
    numbers = _pkcs8_numbers(der)
    if numbers is None:
        raise KeyTextError("not an RSA private key (Base64 of PKCS#8 DER)")
    modulus, own_exponent, private = numbers[1:4]
    try:
        if all(numbers[2:9]):
            key = serialization.load_der_private_key(der, None)
            if not isinstance(key, rsa.RSAPrivateKey):
                raise KeyTextError("a private key, but not an RSA one")
            return key
        exponent = own_exponent or exponent
        p, q = rsa.rsa_recover_prime_factors(modulus, exponent, private)
        return rsa.RSAPrivateNumbers(
            p,
            q,
            private,
            rsa.rsa_crt_dmp1(private, p),
            rsa.rsa_crt_dmq1(private, q),
            rsa.rsa_crt_iqmp(p, q),
            rsa.RSAPublicNumbers(exponent, modulus),
        ).private_key()
    except KeyTextError:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyTextError("an RSA private key whose numbers do not fit") from None


def _pkcs8_numbers(der: bytes) -> list[int] | None:
    """
    Read the nine integers of an RSA PKCS#8 structure; C{None} when it is none.

    A reader of our own because libraries refuse the structure of protocol 6.2 before
    they let anybody look into it.
    """
    try:
        outer = _children(_content(der, 0, 0x30))
        octets = next(value for tag, value in outer if tag == 0x04)
        inner = _children(_content(octets, 0, 0x30))
    except (IndexError, ValueError, StopIteration):
        return None
    numbers = [int.from_bytes(value) for tag, value in inner if tag == 0x02]
    return numbers if len(numbers) == 9 else None


def _content(data: bytes, at: int, tag: int) -> bytes:
    found, value, _ = _element(data, at)
    if found != tag:
        raise ValueError("unexpected DER tag")
    return value


def _children(data: bytes) -> list[tuple[int, bytes]]:
    at, children = 0, []
    while at < len(data):
        tag, value, at = _element(data, at)
        children.append((tag, value))
    return children


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    tag, size = data[at], data[at + 1]
    at += 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("unreasonable DER length")
        size = int.from_bytes(data[at : at + count])
        at += count
    end = at + size
    if end > len(data):
        raise ValueError("DER element ends too late")
    return tag, data[at:end], end
