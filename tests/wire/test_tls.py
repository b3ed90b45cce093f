"""Encryption: what travels cannot be read, and a server with another certificate is not believed."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from serving import TOKEN, Relay, commit, serving

from distkeras.center.requests import Join, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.wire.client import Client, ServerAddress, ServerLost
from distkeras.wire.handshake import AuthenticationError
from distkeras.wire.tls import TLS, fingerprint_of, make_tls


@pytest.fixture(scope="module")
def tls():
    return make_tls()


def impostor(context, seen):
    """Accept one connection under `context` and note what it says."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pretend():
        sock, _ = listener.accept()
        encrypted = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        # Hung up on with unread data, it may see a reset instead of the end.
        with listener, encrypted, suppress(OSError):
            encrypted.do_handshake()
            encrypted.sendall(bytes(64))
            seen.append(encrypted.recv(64))

    thread = threading.Thread(target=pretend)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize("size", [4, 300_000])
def test_commits_travel_encrypted(tls, size):
    with serving(size=size, tls=tls) as (_, center, address):
        heard = []
        relay = Relay(address.port, heard.append)
        with relay, Client(replace(address, port=relay.port)) as client:
            client.call(Join(0))
            assert client.call(commit(0, 1, 0.5, size)).reply.tolist() == [0.5] * size
        assert center.num_updates == 1
    everything = b"".join(heard)
    assert len(everything) > 4 * size
    assert b"num_steps" not in everything
    assert np.full(4, 0.5, np.float32).tobytes() not in everything


def test_a_man_in_the_middle_with_a_certificate_of_his_own_is_told_nothing(tls):
    seen = []
    port, thread = impostor(make_tls().server(), seen)
    address = ServerAddress("127.0.0.1", port, TOKEN, 4, tls=tls.client, pin=fingerprint_of(tls.server()))
    with pytest.raises(AuthenticationError, match="certificate"), Client(address) as client:
        client.call(Join(0))
    thread.join(5)
    assert b"".join(seen) == b""  # Neither a proof of the token nor a session.


def test_a_client_that_does_not_encrypt_is_turned_away(tls, monkeypatch):
    monkeypatch.setattr("distkeras.wire.handshake.HANDSHAKE_SECONDS", 0.5)
    with serving(tls=tls) as (_, center, address):
        plain = ServerAddress(address.host, address.port, TOKEN, 4)
        with pytest.raises(ServerLost), Client(plain, patience=0.0) as client:
            client.call(Join(0))
        assert center.num_updates == 0


def test_a_client_that_encrypts_does_not_talk_to_a_server_that_does_not(tls):
    with serving() as (_, _, address):
        encrypted = ServerAddress(address.host, address.port, TOKEN, 4, tls=tls.client, pin=bytes(32))
        with pytest.raises(ServerLost), Client(encrypted, patience=0.0) as client:
            client.call(Join(0))


def verifying(certificate, folder):
    """Return what makes a context that believes this certificate alone, whatever the host's name."""
    path = folder / "authority.pem"
    path.write_bytes(certificate.pem)

    def make():
        context = ssl.create_default_context(cafile=str(path))
        context.check_hostname = False
        return context

    return make


def test_contexts_of_the_users_own_verify_the_server(tmp_path, tls):
    own = TLS(tls.server, verifying(tls.server, tmp_path))
    with serving(tls=own) as (_, _, address), Client(address) as client:
        assert client.call(Pull()).center.tolist() == [0.0] * 4
    other = TLS(tls.server, verifying(make_tls().server, tmp_path))
    with (
        serving(tls=other) as (_, _, address),
        pytest.raises(AuthenticationError, match="verifies"),
        Client(address) as client,
    ):
        client.call(Pull())


def test_the_key_is_in_no_log(tls):
    assert "PRIVATE" not in repr(tls)
    assert b"PRIVATE" in pickle.dumps(tls)  # It travels to the server, by the pipe.
    assert b"PRIVATE" not in pickle.dumps(tls.client)


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT], ids=str)
def test_a_context_without_a_certificate_is_refused(protocol):
    with pytest.raises(ValueError, match=r"Expected `tls.server` to make a context.*load_cert_chain"):
        fingerprint_of(ssl.SSLContext(protocol))


def test_a_context_that_asks_workers_for_certificates_has_a_fingerprint_too(tls):
    context = tls.server()
    context.verify_mode = ssl.CERT_REQUIRED
    assert fingerprint_of(context) == fingerprint_of(tls.server())


def test_a_context_of_an_older_version_has_a_fingerprint_too(tls):
    context = tls.server()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fingerprint_of(context) == fingerprint_of(tls.server())


def test_anything_else_as_tls_is_refused():
    with pytest.raises(TypeError, match="`tls` must be True, False or"):
        ServerOptions(tls="yes")
