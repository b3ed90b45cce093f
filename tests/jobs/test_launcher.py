"""The script that starts an entry, and where it finds the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from distkeras.jobs import launcher, pack

SAYS = "import neighbour, os, sys; print(neighbour.WORD, sys.argv, os.path.exists('neighbour.py'))"


def launched(script, *arguments, folder, code=0, **variables):
    """Run the launcher and return what it printed."""
    environment = {**os.environ, **variables}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def archive(tmp_path):
    """A packed project of two modules and a job file."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "entry.py").write_text(SAYS)
    (folder / "neighbour.py").write_text("WORD = 'found'")
    (folder / "job.toml").write_text("[train]\nworkes = 3\n")
    return pack(folder, into=tmp_path).path


def test_the_project_is_found_in_a_zip_beside_the_launcher_or_on_the_path(archive, tmp_path):
    mounted, elsewhere = tmp_path / "mounted", tmp_path / "elsewhere"
    mounted.mkdir()
    elsewhere.mkdir()
    shutil.copy(launcher.__file__, mounted / "launcher.py")
    script = mounted / "launcher.py"
    assert "Expected the project" in launched(script, "entry.py", folder=elsewhere, code=1)
    renamed = elsewhere / "project-20260101-1.zip"  # As Kyuubi names what it was sent.
    renamed.write_bytes(archive.read_bytes())
    path = os.pathsep.join([str(renamed), os.environ.get("PYTHONPATH", "")])
    assert "found ['entry.py', 'a b'] True" in launched(
        script, "entry.py", "a b", folder=mounted, PYTHONPATH=path
    )
    (mounted / "project.zip").write_bytes(archive.read_bytes())  # As a ConfigMap has it.
    assert "found ['entry.py'] True" in launched(script, "entry.py", folder=elsewhere)


def test_a_job_file_is_trained_as_the_command_does(archive, tmp_path):
    told = launched(launcher.__file__, "job.toml", folder=tmp_path, code=2)
    assert "`workes` - at `$.train`" in told
