"""
The C{mpush} command: one module a sub-command, loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module

import click

from mpush_tw import __version__

_COMMANDS = {
    "client": ("mpush_tw.cli.client", "client", "Be a device: print what arrives."),
    "push": ("mpush_tw.cli.push", "push", "Push a text to a user, or to many."),
    "broadcast": (
        "mpush_tw.cli.broadcast",
        "broadcast",
        "Push a text to everybody, or count whom it would reach.",
    ),
    "trace": ("mpush_tw.cli.trace", "trace", "Show what became of a push."),
    "bench": ("mpush_tw.cli.bench", "bench", "Measure a node."),
    "keygen": ("mpush_tw.cli.keygen", "keygen", "Make an RSA key pair for a node."),
    "config": ("mpush_tw.cli.config", "config_group", "Check or show a configuration."),
}


class _LazyGroup(click.Group):
    """
    A group that imports a sub-command only to run it, so that help is quick.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        return [*_COMMANDS, *super().list_commands(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return super().get_command(context, name)
        module, attribute, _ = _COMMANDS[name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        rows = [(name, entry[2]) for name, entry in _COMMANDS.items()]
        rows += [
            (name, command.get_short_help_str())
            for name, command in sorted(self.commands.items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """
    Work with an mpush_tw push server.

    \b
    Three lines to see it work, each in its own terminal:
      make run
      mpush client alice
      mpush push alice "hello"
    """


@main.command()
def version() -> None:
    """
    Print the version.
    """
    click.echo(f"mpush_tw {__version__}")
