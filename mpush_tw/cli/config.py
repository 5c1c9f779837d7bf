"""
C{mpush config}: look at a configuration before a node does.

C{check} reads a file as a start would and says what a node would do with it; C{show}
prints the outcome of file, variables and options, without secrets.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import click

from twisted.internet.task import Clock

from mpush_tw.config import LoadedSettings, SettingsError, load_settings, mask, render
from mpush_tw.config.settings import Settings
from mpush_tw.errors import ConfigError
from mpush_tw.extensions import Extensions

__all__ = ["config_group"]


@click.group("config")
def config_group() -> None:
    """
    Check and show the configuration.
    """


@config_group.command()
@click.argument("file")
def check(file: str) -> None:
    """
    Read FILE as a start would, and say what is wrong with it.

    Ends with status 0 and a summary, or with status 1 and a line for each problem.
    """
    loaded = _load(file, ())
    extensions = Extensions.find(loaded.settings, Clock())
    if missing := list(extensions.missing()):
        _refuse(missing)
    click.echo(f"{file}: good")
    for name, value in _summary(loaded.settings):
        click.echo(f"{name:<10} {value}")
    for notice in loaded.notices:
        click.echo(f"notice: {notice.text}")


@config_group.command()
@click.option(
    "--config",
    "file",
    metavar="FILE",
    help="The configuration file; without it the one that MP_CONF names, if any.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Lay a key over the file; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Show the defaults as well.")
@click.argument("path", required=False, default="mp")
def show(
    file: str | None, overrides: Sequence[str], everything: bool, path: str
) -> None:
    """
    Print what differs from the defaults, below PATH (such as mp.net) if one is given.

    The text can be pasted into a configuration file. Secrets are shown as ******.
    """
    loaded = _load(file, overrides)
    whole = {"mp": mask(loaded.tree)}
    shown = whole if everything else {"mp": mask(loaded.changed)}
    elements = _elements(path, whole)
    part = _below(shown, elements)
    if part is None or part == {}:
        click.echo("# nothing here differs from the defaults")
    else:
        click.echo(render(_nested(elements, part)), nl=False)


def _load(file: str | None, overrides: Sequence[str]) -> LoadedSettings:
    try:
        return load_settings(file, overrides)
    except SettingsError as error:
        _refuse(error.problems)
    except ConfigError as error:
        _refuse([error])


def _refuse(problems: Sequence[ConfigError]) -> NoReturn:
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(1)


def _summary(settings: Settings) -> Iterator[tuple[str, str]]:
    net = settings.net
    yield "mode", "cluster" if settings.cluster else "standalone"
    yield "connect", _door(net.connect_server_bind_ip, net.connect_server_port)
    yield "websocket", _door(net.ws_server_bind_ip, net.ws_server_port, zero="off")
    yield "gateway", f"{net.gateway_server_net} {_gateway(settings)}"
    yield "console", _door(net.admin_server_bind_ip, net.admin_server_port)
    yield (
        "metrics",
        _door(net.metrics_server_bind_ip, net.metrics_server_port, zero="off"),
    )
    yield "alloc", _alloc(settings)


def _alloc(settings: Settings) -> str:
    net = settings.net
    if not settings.alloc.enabled:
        return "off"
    return net.alloc_server_endpoint or _door(
        net.alloc_server_bind_ip, net.alloc_server_port
    )


def _gateway(settings: Settings) -> str:
    net = settings.net
    if net.gateway_server_net == "udp":
        return _door("", net.gateway_server_port)
    address = net.gateway_server_bind_ip
    if not address:
        address = "the local ip" if settings.cluster else "127.0.0.1"
    return _door(address, net.gateway_server_port)


def _door(address: str, port: int, zero: str = "any free port") -> str:
    if port == 0 and zero == "off":
        return zero
    return f"{address or 'every address'}, port {port or zero}"


def _elements(path: str, whole: Mapping[str, Any]) -> list[str]:
    """
    Split PATH, which may leave C{mp} out, and end the program if nothing is there.

    Keys that hold dots themselves are found by trying: the longest key that fits wins.
    """
    for start in (path, f"mp.{path}"):
        elements = _match(start, whole)
        if elements is not None:
            return elements
    nearest = difflib.get_close_matches(path, list(_paths(whole)), 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    click.echo(f"{path}: there is no such key{hint}", err=True)
    sys.exit(1)


def _match(rest: str, tree: Any) -> list[str] | None:
    if not isinstance(tree, Mapping):
        return None
    for key in sorted(tree, key=len, reverse=True):
        if rest == key:
            return [key]
        if rest.startswith(f"{key}."):
            below = _match(rest[len(key) + 1 :], tree[key])
            if below is not None:
                return [key, *below]
    return None


def _paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, item in tree.items():
        yield prefix + key
        if isinstance(item, Mapping):
            yield from _paths(item, f"{prefix}{key}.")


def _below(tree: Mapping[str, Any], elements: Sequence[str]) -> Any:
    value: Any = tree
    for element in elements:
        value = value.get(element) if isinstance(value, Mapping) else None
    return value


def _nested(elements: Sequence[str], value: Any) -> dict[str, Any]:
    for element in reversed(elements):
        value = {element: value}
    return dict(value)
