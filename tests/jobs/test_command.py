"""The command `distkeras` without Spark: its help, its answers, its errors, its flags."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from distkeras.command import COMMANDS, main
from distkeras.command.flags import job_flags, tables_of
from distkeras.jobs import read_job
from distkeras.jobs.job_file import JobFile


def run(*arguments, code=0):
    """Run the command in this process; return what it said on stdout and on stderr."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout, result.stderr


def test_help_imports_no_backend_no_spark_and_no_server_of_web_pages():
    code = "import sys; from distkeras.command import main; main(['--help'], standalone_mode=False)"
    code += "; print('MODULES', *sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    text, _, modules = told.partition("MODULES")
    assert all(f"  {name} " in text for name in COMMANDS)
    loaded = {name.partition(".")[0] for name in modules.split()}
    assert not loaded & {"keras", "pyspark", "jax", "tensorflow", "torch", "starlette", "uvicorn", "numpy"}
    assert not {name for name in modules.split() if name.startswith("distkeras.command.")}


def test_every_command_says_of_itself_what_the_list_of_commands_says():
    with click.Context(main) as context:
        for name, line in COMMANDS.items():
            command = main.get_command(context, name)
            assert command.help.split("\n\n")[0].replace("\n", " ").strip() == line, name
            assert command.name == name
    assert "No such command" in run("trian", code=2)[1]


def test_every_field_of_a_job_file_is_a_flag_that_reads_back():
    got = {}

    @click.command()
    @job_flags
    def command(**flags):
        got.update(flags)

    given = {}
    for option in command.params:
        value = {"integer": "3", "float": "0.5", "key=value": "a=1"}.get(option.type.name, "jax")
        if isinstance(option.type, click.Choice):
            value = option.type.choices[-1]
        given[option.name] = [option.opts[0]] if option.secondary_opts else [option.opts[0], value]
    assert len({flag for option in command.params for flag in option.opts}) == len(command.params)
    CliRunner().invoke(command, [part for each in given.values() for part in each], catch_exceptions=False)
    tables = tables_of(got)
    tables["model"].pop("file")
    tables["data"].pop("path")
    tables["validation"].pop("split")
    tables["validation"].pop("path")
    tables["spark"].pop("remote")
    tables["model"]["function"] = tables["data"]["function"] = "a:b"
    job = read_job(None, tables)
    for field in JobFile.__struct_fields__:
        assert getattr(job, field) != getattr(JobFile(), field), field
    assert (job.train.workers, job.train.shuffle, job.train.stop) == (3, True, {"a": 1})
    assert (job.rule.arguments, job.spark.conf) == ({"a": 1}, {"a": "1"})


def test_init_writes_a_project_whose_job_file_is_right_and_never_over_files(tmp_path):
    said, _ = run("init", tmp_path / "new project", "--backend", "torch")
    assert said.endswith("&& distkeras train\n")
    job = read_job(tmp_path / "new project" / "job.toml")
    assert (job.name, job.backend, job.model.function) == ("new-project", "torch", "model:make_model")
    assert "without files" in run("init", tmp_path / "new project", code=2)[1]


@pytest.mark.parametrize("command", ["train", "check"])
def test_the_job_file_of_this_folder_is_read_unless_flags_name_a_model(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "`distkeras init` writes one" in run(command, "--epochs", 3, code=2)[1]
    (tmp_path / "job.toml").write_text("[train]\nworkes = 3\n")
    assert "`workes`" in run(command, "--epochs", 3, code=2)[1]
    assert "[data]" in run(command, "--model-file", "model.keras", code=2)[1]


def test_errors_have_a_code_and_no_traceback_unless_it_is_asked_for(tmp_path):
    said = run("train", tmp_path / "none.toml", code=2)[1]
    assert said.startswith("Error: Expected a job file")
    assert "Traceback" not in said
    document = json.loads(run("train", tmp_path / "none.toml", "--json", code=2)[0])
    assert document["type"] == "JobFileError"
    asked = CliRunner().invoke(main, ["train", str(tmp_path / "none.toml"), "--traceback"])
    assert type(asked.exception).__name__ == "JobFileError"
    assert "No algorithm has the name 'nope'" in run("simulate", "nope", code=1)[1]
    assert "communication_window" in run("simulate", "adag", "--rule-argument", "window=3", code=2)[1]
    assert "Did you mean" in run("train", "--workres", "3", code=2)[1]
    assert "KEY=VALUE" in run("train", "--conf", "nothing", code=2)[1]


def test_a_simulation_is_told_written_and_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = (
        "--workers",
        4,
        "--commits",
        40,
        "--evaluations",
        4,
        "--rule-argument",
        "communication_window=2",
    )
    text, _ = run("simulate", "downpour", *options, "--learning-rate", 0.01, "--run", "runs/a")
    assert text.startswith("DOWNPOUR(communication_window=2), 4 workers\ncommits  seconds  loss\n")
    assert "staleness: mean" in text
    told = json.loads(run("simulate", "adag", *options, "--run", "runs/b", "--json")[0])
    assert [row["commits"] for row in told["evaluations"]] == [0, 10, 20, 30, 40]
    assert (told["workers"], told["diverged"]) == (4, False)
    assert run("simulate", "downpour", *options, "--learning-rate", 1e30, code=1)[0].count("It diverged") == 1

    table, _ = run("runs", "list", "runs")
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [
        ["runs/a", "finished", "DOWNPOUR"],
        ["runs/b", "finished", "ADAG"],
    ]
    listed = json.loads(run("runs", "list", "runs", "--json")[0])
    assert [each["workers"] for each in listed["runs"]] == [4, 4]
    assert json.loads(run("runs", "show", "runs/a", "--json")[0])["settings"]["num_workers"] == 4
    assert "runs/a: finished" in run("runs", "show", "runs/a")[0]
    assert len(run("runs", "compare", "runs/a", "runs/b")[0].splitlines()) == 3
    assert "no run here" in run("runs", "list", tmp_path / "runs" / "a" / "events", code=1)[1]
    assert "has ended already" in run("stop", "runs/a")[0]


def test_a_running_training_is_asked_to_end_through_its_run(tmp_path):
    from distkeras.runs import Run

    with Run.open(str(tmp_path / "run")) as written:
        written.begin({"num_workers": 1})
        assert "asked to end" in run("stop", tmp_path / "run")[0]
        assert written.control.asked() == ["stop"]
        assert "distkeras stop" in written.control.by("stop")


def test_a_problem_of_ones_own_is_simulated(tmp_path, monkeypatch):
    (tmp_path / "my_problem.py").write_text(
        "from distkeras.simulation import Quadratic\n\ndef make(start):\n    return Quadratic(start=start)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    given = ("--problem", "my_problem:make", "--problem-argument", "start=2.0", "--commits", 5)
    assert json.loads(run("simulate", "adag", *given, "--json")[0])["evaluations"][0]["loss"] == 2.0
    assert "Expected a function" in run("simulate", "adag", "--problem", "my_problem:none", code=2)[1]
    assert "Expected a module" in run("simulate", "adag", "--problem", "no_such:make", code=2)[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_the_shell_reads(shell):
    assert "_DISTKERAS_COMPLETE" in run("completion", shell)[0]
