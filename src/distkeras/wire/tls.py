"""Encryption of the connections: a certificate made for one job, or contexts of the user's own."""

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
LIFETIME = datetime.timedelta(days=365)  # Longer than any job; the certificate is forgotten with its own.


@dataclass(frozen=True)
class TLS:
    """How connections are encrypted. A context cannot travel between processes, so each makes its own.

    Whatever the contexts verify, workers moreover insist on the very certificate of this job's server, by its
    SHA-256 fingerprint, which they are told beside the token.

    Args:
        server: makes the server's context, with certificate and key; called in the driver's and the server's
            process.
        client: makes the workers' context; called in the driver and in every worker's process.

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
    """A self-signed certificate and its key; called, it makes the server's context."""

    pem: bytes
    key: bytes = field(repr=False)

    def __call__(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # OpenSSL takes a key from a file alone; this directory is for this user's eyes, and for a moment.
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            path = Path(folder, "server.pem")
            path.touch(mode=0o600)
            path.write_bytes(self.key + self.pem)
            context.load_cert_chain(path)
        return context


def make_tls() -> TLS:
    """Return contexts around a certificate made here and now, for one job.

    Raises:
        ImportError: the package `cryptography` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ImportError(
            "`tls=True` makes a certificate with the package cryptography. Install it beside the driver, "
            "`pip install 'distkeras[tls]'`, or give contexts of your own: `tls=TLS(server, client)`."
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
    """Return a client's context that asks no authority: the pinned fingerprint says who the server is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in DER form, as the other side shows it."""
    return hashlib.sha256(certificate).digest()


def fingerprint_of(context: ssl.SSLContext) -> bytes:
    """Return the fingerprint of the certificate that a server's `context` shows.

    A context does not tell its certificate: one handshake is made with it, in memory.

    Raises:
        ValueError: the context shows none.
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
                break  # Before the server may miss a certificate of the client's.
            except ssl.SSLWantReadError:
                with contextlib.suppress(ssl.SSLWantReadError):
                    server.do_handshake()
        certificate = client.getpeercert(binary_form=True)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{_NO_CERTIFICATE}{error}") from error
    if certificate is None:
        raise ValueError(f"{_NO_CERTIFICATE}a context that shows none.")
    return fingerprint(certificate)


_NO_CERTIFICATE = (
    "Expected `tls.server` to make a context for servers, such as ssl.create_default_context("
    "ssl.Purpose.CLIENT_AUTH), with a certificate by its `load_cert_chain`. Received: "
)
