"""`distkeras dashboard`: the page of runs, live or finished."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from distkeras.monitor.dashboard.catalogue import Catalogue


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8765, or a free one if it is taken.")
@click.option("--token", help="Token of the link. Default: a new one, or DISTKERAS_DASHBOARD_TOKEN.")
@click.option("--no-token", is_flag=True, help="Use no token: every user of this machine can open the page.")
@click.option(
    "--allow-host", "names", multiple=True, help="Another host name by which browsers reach the page."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def dashboard(
    runs: tuple[str, ...],
    host: str,
    port: int | None,
    token: str | None,
    no_token: bool,
    names: tuple[str, ...],
    opens: bool,
) -> None:
    """Show the page of RUNS: addresses of runs, or folders of runs, on any filesystem.

    The page reads what trainings have written; it shows those that run and those that ended long ago. Ctrl-C
    ends it.
    """
    from distkeras.monitor.dashboard.viewer import ViewerOptions, link, serve

    if token is not None and no_token:
        raise click.UsageError("Give --token or --no-token, not both.")
    given = "" if no_token else token or os.environ.get("DISTKERAS_DASHBOARD_TOKEN")
    more: dict[str, Any] = {} if given is None else {"token": given}
    options = ViewerOptions(runs, host, port, names=names, **more)

    def ready(bound: int, catalogue: Catalogue) -> None:
        address = link(options.host, bound, options.token)
        click.echo(f"The page of {', '.join(runs)}: {address}")
        for searched in catalogue.runs()["searched"]:
            if searched["trouble"]:
                click.echo(f"{searched['address']}: {searched['trouble']}", err=True)
        sys.stdout.flush()
        if opens:
            webbrowser.open(address)

    try:
        serve(options, ready)
    except (ImportError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
