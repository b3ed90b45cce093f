"""`distkeras completion`: completion of this command in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from distkeras.command.answers import Answer, answers

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@answers
def completion(shell: str) -> Answer:
    """Print the lines that complete this command in a shell.

    For bash: `eval "$(distkeras completion bash)"` in ~/.bashrc; for zsh the same in ~/.zshrc; for fish
    `distkeras completion fish > ~/.config/fish/completions/distkeras.fish`.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"Expected one of {SHELLS}. Received: {shell}")
    root = click.get_current_context().find_root().command
    lines = kind(root, {}, "distkeras", "_DISTKERAS_COMPLETE").source()
    return Answer({"shell": shell, "lines": lines}, lines)
