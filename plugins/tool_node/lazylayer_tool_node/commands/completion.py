"""`lazylayer completion`: print what a shell needs to complete commands and options."""

from __future__ import annotations

import click

from lazylayer.cli import cli

_VARIABLE = "_LAZYLAYER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that has SHELL complete commands and options.

    \b
    bash   eval "$(lazylayer completion bash)"     in ~/.bashrc
    zsh    eval "$(lazylayer completion zsh)"      in ~/.zshrc
    fish   lazylayer completion fish > ~/.config/fish/completions/lazylayer.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    complete = found(cli, {}, "lazylayer", _VARIABLE)
    # `source` asks the bash of this machine for its version, which says nothing of the one that will read this.
    click.echo(complete.source_template % complete.source_vars())
