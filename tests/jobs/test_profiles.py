"""The user's configuration: profiles, tokens, addresses."""

from __future__ import annotations

import pytest

from distkeras.jobs import Profile, ProfileError, read_config
from distkeras.jobs.profiles import check_url, config_file, read_token


def test_without_a_file_jobs_run_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "distkeras" / "config.toml"
    assert read_config().profile() == Profile(engine="spark-submit", master="local[*]")


def test_a_profile_is_found_by_its_name_or_is_the_default(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        'default = "prod"\n[profiles.prod]\nmaster = "spark://a:7077"\n'
        'conf = {"spark.executor.memory" = "2g"}\n'
        '[profiles.team]\nengine = "server"\nurl = "https://jobs"\n'
    )
    config = read_config(path)
    assert config.profile().conf == {"spark.executor.memory": "2g"}
    assert config.profile("team").engine == "server"
    with pytest.raises(ProfileError, match=r"\['local', 'prod', 'team'\].*profile='prd'"):
        config.profile("prd")


@pytest.mark.parametrize(
    "text", ["[profiles.a]\nmastr = 'x'", "[profiles.a]\nengine = 'slurm'", "[", b"\xff\xfe"]
)
def test_a_configuration_that_is_wrong_is_refused_with_the_place(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError, match=r"config\.toml"):
        read_config(path)


def test_a_token_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("secret-word\n")
    path.chmod(0o600)
    assert read_token(path) == "secret-word"
    path.chmod(0o640)
    with pytest.raises(ProfileError, match="chmod 600") as caught:
        read_token(path)
    assert "secret-word" not in str(caught.value)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(ProfileError, match="one token"):
        read_token(path)


def test_a_token_travels_to_other_machines_by_https_alone():
    for url in ("https://host:1/", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        assert check_url(url, has_token=True, allow_http=False) == url.rstrip("/")
    assert check_url("http://host", has_token=True, allow_http=True) == "http://host"
    assert check_url("http://host", has_token=False, allow_http=False) == "http://host"
    for url in ("http://host", "ftp://host", None, "host:80"):
        with pytest.raises(ProfileError):
            check_url(url, has_token=True, allow_http=False)
