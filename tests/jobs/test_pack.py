"""Packing a project and unpacking what may come from anyone."""

from __future__ import annotations

import stat
import subprocess
import zipfile

import pytest

from distkeras.jobs import PackError, Submission, pack, unpack


@pytest.fixture
def project(tmp_path):
    """A folder with files to send, and others."""
    folder = tmp_path / "project"
    for name in (
        "train.py",
        "data/rows.csv",
        ".hidden",
        "__pycache__/train.pyc",
        "runs/a/run.json",
        "venv/pyvenv.cfg",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


def test_without_git_everything_but_hidden_files_caches_and_runs_is_packed(project):
    assert pack(project).files == ("data/rows.csv", "train.py")


def test_in_a_repository_tracked_files_are_packed_as_they_are_now(project, tmp_path):
    git(project, "init")
    with pytest.raises(PackError, match="git add"):
        pack(project)
    git(project, "add", "train.py", ".hidden", "data")
    (project / "train.py").write_text("changed")
    (project / "data" / "rows.csv").unlink()
    packed = pack(project)
    assert packed.files == (".hidden", "train.py")
    unpack(packed.path, tmp_path / "there")
    assert (tmp_path / "there" / "train.py").read_text() == "changed"


def test_a_folder_within_a_repository_is_a_project_of_its_own(project):
    git(project, "init")
    git(project, "add", ".")
    assert pack(project / "data").files == ("rows.csv",)


def test_the_same_files_give_the_same_archive_and_other_files_another(project):
    (project / "train.py").chmod(0o755)
    first, again = pack(project), pack(project)
    assert (first.sha256, first.num_bytes) == (again.sha256, again.num_bytes)
    assert first.num_bytes == first.path.stat().st_size
    (project / "train.py").write_text("changed")
    assert pack(project).sha256 != first.sha256


def test_a_project_that_is_too_large_is_refused_with_its_largest_files(project):
    (project / "data" / "rows.csv").write_bytes(bytes(5000))
    with pytest.raises(PackError, match=r"at most 1,000 bytes.*data/rows.csv \(5,000 bytes\)"):
        pack(project, max_bytes=1000)


def test_a_link_is_packed_as_what_it_leads_to_and_refused_if_that_is_elsewhere(project, tmp_path):
    (project / "again.py").symlink_to("train.py")
    assert "again.py" in pack(project).files
    (tmp_path / "secret").write_text("secret")
    (project / "other").symlink_to(tmp_path / "secret")
    with pytest.raises(PackError, match="leads to"):
        pack(project)


def test_a_submission_needs_an_entry_that_is_sent(project):
    packed = pack(project)
    assert Submission("train.py", (), packed, "name").arguments == ()
    with pytest.raises(PackError, match="git add"):
        Submission("other.py", (), packed, "name")
    with pytest.raises(PackError, match=r"\.py"):
        Submission("data/rows.csv", (), packed, "name")


def test_unpacking_keeps_names_contents_and_whether_a_file_is_executable(project, tmp_path):
    (project / "train.py").chmod(0o755)
    unpack(pack(project).path, tmp_path / "there")
    files = sorted(path for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert [path.read_text() for path in files] == ["data/rows.csv", "train.py"]
    assert [bool(path.stat().st_mode & stat.S_IXUSR) for path in files] == [False, True]
    with pytest.raises(PackError, match="empty folder"):
        unpack(pack(project).path, tmp_path / "there")


def archive_of(folder, *names, mode=stat.S_IFREG | 0o644, content=b"x"):
    path = folder / "any.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        for name in names:
            info = zipfile.ZipInfo("name")
            info.filename, info.external_attr = name, mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            written.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["../out"],
        ["a/../../out"],
        ["/out"],
        ["a//b"],
        ["./a"],
        ["a\\..\\out"],
        ["C:out"],
        ["a" * 300],
        ["a/" * 600 + "b"],
        ["a", "a"],
        ["a", "a/b"],
        ["../"],
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_out_of_the_folder_or_are_there_twice_are_refused(tmp_path, names):
    with pytest.raises(PackError):
        unpack(archive_of(tmp_path, *names), tmp_path / "in" / "there")
    assert not list((tmp_path / "in" / "there").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"any.zip", "in"}


def test_links_are_refused(tmp_path):
    link = archive_of(tmp_path, "link", mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd")
    with pytest.raises(PackError, match="links"):
        unpack(link, tmp_path / "there")


def test_a_bomb_is_refused_also_if_it_lies_about_its_size(tmp_path):
    bomb = archive_of(tmp_path, "zeros", content=bytes(1_000_000))
    with pytest.raises(PackError, match="at most 1,000 bytes"):
        unpack(bomb, tmp_path / "there", max_bytes=1000)
    # The directory at the end of the archive tells 10 bytes.
    honest = bomb.read_bytes()
    size = (1_000_000).to_bytes(4, "little")
    at = honest.rindex(size)
    bomb.write_bytes(honest[:at] + (10).to_bytes(4, "little") + honest[at + 4 :])
    with pytest.raises(PackError):
        unpack(bomb, tmp_path / "again", max_bytes=1000)
    assert sum(path.stat().st_size for path in (tmp_path / "again").iterdir()) <= 1000


def test_what_is_no_archive_or_a_damaged_one_is_refused(tmp_path):
    path = archive_of(tmp_path, "name", content=b"some bytes to deflate" * 50)
    whole = path.read_bytes()
    for number, damaged in enumerate(
        (
            b"",
            b"PK",
            whole[:60],
            whole[: len(whole) // 2] + b"\xff\xff\xff\xff" + whole[len(whole) // 2 + 4 :],
        )
    ):
        path.write_bytes(damaged)
        with pytest.raises(PackError):
            unpack(path, tmp_path / f"there-{number}")
