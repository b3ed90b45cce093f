"""The engine that speaks to a job server: over TLS, to a server that other machines could reach."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from job_servers import JobServerProcess

from distkeras.jobs import JobError, Profile, ProfileError, Submission, pack
from distkeras.jobs.engines import engine_of


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a folder with a certificate for 127.0.0.1, and its key."""
    folder, key = tmp_path_factory.mktemp("certificate"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "job server")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder


@pytest.fixture
def servers():
    """Keeps servers, and ends them, after whatever has failed."""
    with contextlib.ExitStack() as started:
        yield started


def start(folder, certificate, port=0):
    options = ["--host", "0.0.0.0", "--certificate", str(certificate / "cert.pem"), "--key"]
    tls = ssl.create_default_context(cafile=certificate / "cert.pem")
    options += [str(certificate / "key.pem"), "--grace", "0.2", "--upload-mb", "1"]
    server = JobServerProcess(folder, *options, port=port, tls=tls)
    server.address = f"https://127.0.0.1:{server.port}/"
    return server


def profile_of(server, certificate, **changed):
    given = {"url": server.address, "token_file": str(server.token_file)}
    given |= {"ca_file": str(certificate / "cert.pem"), **changed}
    return Profile(engine="server", **given)


def submission_of(folder, code, **more):
    folder.mkdir()
    (folder / "train.py").write_text(code)
    return Submission("train.py", ("--epochs", "5"), pack(folder), "a project", **more)


def test_a_job_is_submitted_followed_and_stopped_over_tls_though_the_server_is_killed(
    tmp_path, certificate, servers
):
    server = servers.enter_context(start(tmp_path / "server", certificate))
    engine = engine_of(profile_of(server, certificate, environment={"NAME": "profile"}))
    code = f"""
import os, sys, time
print("begun", sys.argv[1:], os.environ["NAME"], os.environ["OTHER"], flush=True)
while not os.path.exists({str(tmp_path / "go")!r}):
    time.sleep(0.02)
print("ended")
"""
    job = engine.submit(submission_of(tmp_path / "first", code, environment={"OTHER": "ü"}))
    other = engine.submit(submission_of(tmp_path / "second", "print('never')"))
    texts, heard = [], threading.Event()

    def listen():
        for text in engine.logs(job, follow=True):
            texts.append(text)
            heard.set()

    listening = threading.Thread(target=listen)
    listening.start()
    assert heard.wait(60)
    server.kill()
    server = servers.enter_context(start(tmp_path / "server", certificate, server.port))
    assert engine.status(job).state == "running"
    engine.stop(other)
    (tmp_path / "go").touch()
    listening.join(60)
    expected = "begun ['--epochs', '5'] profile ü\nended\n"
    assert "".join(texts) == expected == "".join(engine.logs(job, follow=False))
    found = engine.status(job)
    assert (found.id, found.name, found.state, found.exit_code) == (job, "a project", "succeeded", 0)
    assert [(each.id, each.state) for each in engine.jobs()] == [(job, "succeeded"), (other, "stopped")]
    check_refusals(engine, server, certificate, tmp_path)


def check_refusals(engine, server, certificate, tmp_path):
    """What the server refuses is told as it tells it, and what cannot be trusted gets no token."""
    for ask in (engine.status, engine.stop, lambda job: list(engine.logs(job, True))):
        with pytest.raises(JobError, match=r"no job of this id: nothing"):
            ask("nothing")
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "data").write_bytes(ssl.RAND_bytes(1_300_000))
    (tmp_path / "large" / "train.py").write_text("")
    with pytest.raises(JobError, match="at most 1,048,576 bytes"):
        engine.submit(Submission("train.py", (), pack(tmp_path / "large"), "large"))
    with pytest.raises(JobError, match="at most 262,144 bytes"):
        engine.submit(Submission("train.py", ("x" * 65000,) * 5, pack(tmp_path / "first"), "many"))
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("wrong")
    with pytest.raises(JobError, match="Expected the token"):
        engine_of(profile_of(server, certificate, token_file=str(wrong))).jobs()
    with pytest.raises(JobError, match="CERTIFICATE_VERIFY_FAILED"):
        engine_of(profile_of(server, certificate, ca_file=None)).jobs()
    with pytest.raises(ProfileError, match="ca_file="):
        engine_of(profile_of(server, certificate, ca_file=str(tmp_path / "none")))
    with pytest.raises(ProfileError, match="token_file"):
        engine_of(profile_of(server, certificate, token_file=None))
