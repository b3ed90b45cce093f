"""Passwords and tokens in addresses stand in no text."""

from __future__ import annotations

import traceback

import pytest

from distkeras.wire.redaction import Redaction, hidden_in_errors, secrets_in, without_secrets
from distkeras.wire.store import SnapshotOptions


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:pa55word@bucket/run", "s3://***@bucket/run"),
        ("cannot write to ftp://me:a@b:c@host/x now", "cannot write to ftp://***@host/x now"),
        ("simplecache::abfs://token@box/x", "simplecache::abfs://***@box/x"),
        ("https://host/x?sig=abc%3D&part=1", "https://host/x?sig=***&part=1"),
        ("https://host/x?aws_secret_key=abc&Token=t", "https://host/x?aws_secret_key=***&Token=***"),
        ("/mnt/backup/run", "/mnt/backup/run"),
        ("s3://bucket/user@host/key=5", "s3://bucket/user@host/key=5"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text, shown):
    assert without_secrets(text) == shown
    assert repr(SnapshotOptions(text)).startswith(f"SnapshotOptions(address={shown!r}")


def test_what_a_filesystem_repeats_of_an_address_is_hidden():
    hide = Redaction(secrets_in("s3://key:pa%2Fss%2Fword@bucket/run?token=1234567"))
    assert hide("403 for key:pa%2Fss%2Fword@bucket/run") == "403 for ***@bucket/run"
    assert hide("user key, password pa/ss/word, 1234567") == "user key, password ***, ***"
    assert secrets_in(None) == secrets_in("/a/folder") == []


def test_an_error_that_repeats_a_secret_is_another_one_without_it():
    address = "s3://k:p@bucket"  # From Python 3.13 on a traceback shows all lines of the statement.
    with (
        pytest.raises(OSError, match=r"^PermissionError: no: \*\*\*@bucket$") as told,
        hidden_in_errors(address),
    ):
        raise PermissionError("no: k:p@bucket")
    assert "k:p@" not in "".join(traceback.format_exception(told.value))
    with pytest.raises(KeyError, match="something else"), hidden_in_errors("s3://k:p@bucket"):
        raise KeyError("something else")
