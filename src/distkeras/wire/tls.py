"""Encryption of the connections: a certificate made for one job, or contexts of the user."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COMMON_NAME = "distkeras parameter server"
MAX_TURNS = 8
LIFETIME = datetime.timedelta(days=365)  # Longer than any job; the certificate is discarded with its job.


@dataclass(frozen=True)
class TLS:
    """How connections are encrypted. Contexts cannot be sent to other processes, so each makes its own.

    Whatever the contexts verify, workers also require the certificate of this job's server, by its SHA-256
    fingerprint, which they receive with the token.

    Args:
        server: makes the server's context, with certificate and key; called in the driver's and the server's
            process.
        client: makes the workers' context; called in the driver's and in every worker's process.

    Example:
        ```python
        def server():
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain("/etc/ssl/server.pem", "/etc/ssl/server.key")
            return context

        def client():
            return ssl.create_default_context(cafile="/etc/ssl/authority.pem")

        options = ServerOptions(host="driver.example.org", tls=TLS(server, client))
        ```
    """

    server: Callable[[], ssl.SSLContext]
    client: Callable[[], ssl.SSLContext]


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key; calling it makes the server's context."""

    pem: bytes
    key: bytes = field(repr=False)

    def __call__(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # OpenSSL reads a key only from a file. This directory is private and short-lived.
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            path = Path(folder, "server.pem")
            path.touch(mode=0o600)
            path.write_bytes(self.key + self.pem)
            context.load_cert_chain(path)
        return context


def make_tls() -> TLS:
    """Return contexts for a new certificate, for one job.

    Raises:
        ImportError: the package `cryptography` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ImportError(
            "`tls=True` makes a certificate with the package cryptography. Install it on the driver, "
            "`pip install 'distkeras[tls]'`, or pass your own contexts: `tls=TLS(server, client)`."
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, COMMON_NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # Clocks differ.
        .not_valid_after(now + LIFETIME)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TLS(Certificate(certificate.public_bytes(serialization.Encoding.PEM), private), pinning_context)


def pinning_context() -> ssl.SSLContext:
    """Return a client's context that trusts no authority: the pinned fingerprint identifies the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in DER form, as the other side presents it."""
    return hashlib.sha256(certificate).digest()


def fingerprint_of(context: ssl.SSLContext) -> bytes:
    """Return the fingerprint of the certificate that a server's `context` presents.

    A context does not give access to its certificate, so this makes one handshake with it, in memory.

    Raises:
        ValueError: the context presents none.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    client = asking.wrap_bio(to_client, to_server)
    try:
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(MAX_TURNS):
            try:
                client.do_handshake()
                break  # Before the server can miss a certificate of the client.
            except ssl.SSLWantReadError:
                with contextlib.suppress(ssl.SSLWantReadError):
                    server.do_handshake()
        certificate = client.getpeercert(binary_form=True)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{_NO_CERTIFICATE}{error}") from error
    if certificate is None:
        raise ValueError(f"{_NO_CERTIFICATE}a context that presents none.")
    return fingerprint(certificate)


_NO_CERTIFICATE = (
    "Expected `tls.server` to make a context for servers, such as ssl.create_default_context("
    "ssl.Purpose.CLIENT_AUTH), with a certificate loaded by `load_cert_chain`. Received: "
)
