"""`distkeras serve`: a job server for a team without a cluster manager."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from distkeras.jobs.server.serving import Served

MEGABYTE = 1024 * 1024


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of queue, projects, logs and token.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8766, or a free one if it is taken.")
@click.option(
    "--certificate", type=click.Path(exists=True, path_type=Path), help="Certificate in PEM, for TLS."
)
@click.option("--key", type=click.Path(exists=True, path_type=Path), help="Its private key in PEM.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File of the token. Default: in the folder."
)
@click.option("--allow-host", "names", multiple=True, help="A further name in the browser's address bar.")
@click.option("--master", help="Spark's master for all jobs, such as spark://host:7077. Default: local[*].")
@click.option("--runs", multiple=True, help="A further folder of runs that the page shows.")
@click.option("--running", default=1, show_default=True, help="Jobs at once.")
@click.option("--queued", default=100, show_default=True, help="Jobs that may wait.")
@click.option("--kept", default=200, show_default=True, help="Ended jobs that are kept, with their folders.")
@click.option("--upload-mb", default=64, show_default=True, help="Megabytes of a project, packed.")
@click.option("--unpacked-mb", default=256, show_default=True, help="Megabytes of a project, unpacked.")
@click.option("--log-mb", default=64, show_default=True, help="Megabytes of a job's log.")
@click.option("--grace", default=30.0, show_default=True, help="Seconds for a job to end by itself.")
def serve(
    folder: Path | None,
    host: str,
    port: int | None,
    certificate: Path | None,
    key: Path | None,
    token_file: Path | None,
    names: tuple[str, ...],
    master: str | None,
    runs: tuple[str, ...],
    running: int,
    queued: int,
    kept: int,
    upload_mb: int,
    unpacked_mb: int,
    log_mb: int,
    grace: float,
) -> None:
    """Serve jobs to a team: a queue, a page, and a process for each job.

    Members submit with `distkeras submit --profile`. Who has the token can run any program as you. Ctrl-C
    ends the server; jobs that run go on, and the next server finds them.
    """
    from distkeras.jobs.server.home import HomeError, default_home
    from distkeras.jobs.server.limits import Limits
    from distkeras.jobs.server.serving import ServerOptions
    from distkeras.jobs.server.serving import serve as serve_jobs
    from distkeras.jobs.server.store import StoreError
    from distkeras.web.serving import Certificate

    if (certificate is None) != (key is None):
        raise click.UsageError("Give both --certificate and --key, or none.")

    def ready(served: Served) -> None:
        click.echo(f"The job server: {served.address}")
        click.echo(f"Its token, which is the right to run programs as you: {served.token_file}")
        sys.stdout.flush()

    try:
        limits = Limits(
            running=running,
            queued=queued,
            kept=kept,
            upload_bytes=upload_mb * MEGABYTE,
            unpacked_bytes=unpacked_mb * MEGABYTE,
            log_bytes=log_mb * MEGABYTE,
            grace=grace,
        )
        options = ServerOptions(
            folder=folder or default_home(),
            host=host,
            port=port,
            certificate=None if certificate is None or key is None else Certificate(certificate, key),
            token_file=token_file,
            names=names,
            master=master,
            runs=runs,
            limits=limits,
        )
        serve_jobs(options, ready)
    except (ImportError, OSError, ValueError, HomeError, StoreError) as error:
        raise click.ClickException(str(error)) from error
