"""
Encryption of the connections to Redis (C{mp.redis.tls}).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto

from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from mpush_tw.config.settings import RedisTlsSettings
from mpush_tw.errors import ConfigError

_KEY = "mp.redis.tls"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class ClientTls:
    """
    What this side brings to a TLS connection. The files are read once.
    """

    def __init__(self, settings: RedisTlsSettings) -> None:
        """
        @raise ConfigError: If a file cannot be used.
        """
        self._verify_hostname = settings.verify_hostname
        self._trust = platformTrust()
        if settings.ca_file:
            self._trust = trustRootFromCertificates(
                _certificates(f"{_KEY}.ca-file", settings.ca_file)
            )
        self._own: PrivateCertificate | None = None
        self._chain: list[Any] = []
        if settings.cert_file:
            first, *chain = _certificates(f"{_KEY}.cert-file", settings.cert_file)
            self._own = _private(first, settings.key_file)
            self._chain = [certificate.original for certificate in chain]

    def towards(self, host: str) -> IOpenSSLClientConnectionCreator:
        """
        Give what the connection to one host needs.
        """
        own: dict[str, Any] = {}
        if self._own is not None:
            own["privateKey"] = self._own.privateKey.original
            own["certificate"] = self._own.original
            own["extraCertChain"] = self._chain
        if not self._verify_hostname:
            return _AnyName(CertificateOptions(trustRoot=self._trust, **own))
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            host, self._trust, extraCertificateOptions=own
        )
        return creator


@implementer(IOpenSSLClientConnectionCreator)
class _AnyName:
    """
    Checks who signed the certificate, not for whom.
    """

    def __init__(self, options: CertificateOptions) -> None:
        self._context = options.getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        return connection


def _read(key: str, path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(key, f"{path} is no PEM file") from None


def _certificates(key: str, path: str) -> list[Certificate]:
    """
    Read the certificates of a file, at least one.
    """
    text = _read(key, path)
    blocks = [block.partition(_END)[0] for block in text.split(_BEGIN)[1:]]
    try:
        found = [
            Certificate.loadPEM((_BEGIN + block + _END).encode()) for block in blocks
        ]
    except crypto.Error:
        found = []
    if not found:
        raise ConfigError(key, f"{path} holds no certificate in PEM form")
    return found


def _private(certificate: Certificate, path: str) -> PrivateCertificate:
    key = f"{_KEY}.key-file"
    text = _read(key, path)
    try:
        own: PrivateCertificate = PrivateCertificate.loadPEM(
            f"{text}\n{certificate.dumpPEM().decode()}"
        )
    except VerifyError:
        raise ConfigError(key, f"{path} is not the key of {_KEY}.cert-file") from None
    except (crypto.Error, ValueError, TypeError):
        raise ConfigError(
            key, f"{path} holds no private key in PEM form without a passphrase"
        ) from None
    return own
