"""
From files, options and variables to L{Settings}.

The layers, weakest first: the defaults beside the attributes of L{Settings}; the file
of C{--config} or, without one, of the variable C{MP_CONF}; each C{--set key=value} in
the order given. They are laid over each other first and substitutions are resolved once
over the whole (operations 1.2; DESIGN 4 leaves out its other layers). Then everything
is read and checked at once, and every fault is reported together.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from mpush_tw.config import _fields, hocon
from mpush_tw.config._aliases import Alias, aliases_in_use
from mpush_tw.config._baseline import Baseline
from mpush_tw.config._checks import conflicts
from mpush_tw.config._notices import Notice, collect
from mpush_tw.config.hocon import Text, join
from mpush_tw.config.render import mask, render_value
from mpush_tw.config.settings import Settings
from mpush_tw.errors import ConfigError

__all__ = ["LoadedSettings", "SettingsError", "load_settings"]


class SettingsError(ConfigError):
    """
    One or more keys have values that cannot be used.

    C{key}, C{problem} and C{source} are those of the first; the text lists all of them,
    a line each.

    @ivar problems: A L{ConfigError} for each key at fault, at least one, in the order
        of the reference.
    """

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        first = problems[0]
        super().__init__(first.key, first.problem, first.source)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@attrs.frozen
class LoadedSettings:
    """
    The outcome of L{load_settings}.

    @ivar settings: The settings, checked.
    @ivar notices: What the operator should read once at start; none is an error.
    @ivar tree: The merged and resolved C{mp} tree as plain data, values as written
        (C{"3m"}, C{"10k"}), for display; holds secrets, see
        L{mpush_tw.config.mask}.
    @ivar source: The name of the configuration file, or C{"defaults"}.
    @ivar changed: The part of C{tree} that differs from the defaults, without unknown
        keys; holds secrets as well.
    @ivar whole: C{tree} as C{mp}, and what stands beside it; likewise.
    """

    settings: Settings
    notices: list[Notice]
    tree: dict[str, Any] = attrs.field(repr=False)
    source: str
    changed: dict[str, Any] = attrs.field(factory=dict, repr=False)
    whole: dict[str, Any] = attrs.field(factory=dict, repr=False)


def load_settings(
    path: str | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    tree: Mapping[str, Any] | None = None,
) -> LoadedSettings:
    """
    Read the whole configuration of a node.

    @param path: The file of C{--config}. None, or an empty text: the file that
        C{MP_CONF} of C{environ} names, or none.
    @param overrides: The texts of C{--set}, C{mp.a.b=value} each, the last strongest.
        The value is taken as it stands, without quotes, unless it starts with C{[},
        C{{} or C{"} or holds C{${}: then it is HOCON.
    @param environ: The environment, for C{MP_CONF} and for C{${NAME}} in texts.
    @param tree: What a program sets, as plain data with C{mp} at the root; above the
        file, below the overrides. Texts are taken as they are.
    @raise ConfigError: If a file is missing or unreadable, a text is not HOCON, a
        substitution has no value; L{SettingsError} if values cannot be used.
    """
    lookup = {**environ, **_pseudo_properties()}
    layers = [_override(text, lookup) for text in reversed(overrides)]
    if tree is not None:
        layers.append(hocon.from_tree(dict(tree), "the program"))
    file = path or environ.get("MP_CONF") or None
    if file is not None:
        layers.append(_file(file, lookup))
    renamed = aliases_in_use(layers)
    reading = _Reading(layers, renamed)
    stack = [*_alias_layers(renamed, lookup), *layers]
    try:
        whole = hocon.merge([*stack, *_defaults(lookup)])
    except ConfigError:
        # A list for mp.home breaks the defaults that refer to it before mp.home itself
        # is judged: find the culprit with defaults that refer to nothing.
        plain = hocon.merge([*stack, *_defaults(lookup, refer=False)])
        reading.settings(_mp(plain))
        raise
    tree = _mp(whole)
    settings = reading.settings(tree)
    baseline = Baseline(tree, lookup)
    notices = collect(whole, baseline, layers, renamed)
    return LoadedSettings(
        settings, notices, tree, file or "defaults", baseline.changed(), whole
    )


def _pseudo_properties() -> dict[str, str]:
    """
    The Java properties that substitutions may name (operations 1.2).
    """
    home = os.path.expanduser("~")
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a number without a name
        user = str(os.getuid())
    return {
        "user.dir": os.getcwd(),
        "user.home": home,
        "user.name": user,
        "os.name": platform.system(),
        "java.io.tmpdir": tempfile.gettempdir(),
        "line.separator": "\n",
    }


def _file(path: str, environ: Mapping[str, str]) -> Text:
    try:
        text = hocon.read_file(path)
    except FileNotFoundError:
        raise ConfigError("", "there is no such file", path) from None
    except OSError as error:
        raise ConfigError("", f"cannot be read: {error.strerror}", path) from None
    base_dir = os.path.dirname(os.path.abspath(path))
    return hocon.read(text, path, environ, base_dir)


def _override(text: str, environ: Mapping[str, str]) -> Text:
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals:
        raise ConfigError("", "expected key=value", "--set")
    if not re.match(r"mp\.\S", key):
        raise ConfigError("", "expected a key that starts with mp.", f"--set {key}")
    is_hocon = value[:1] in ("[", "{", '"') or "${" in value
    if not is_hocon and value not in ("true", "false"):
        value = render_value(value)
    return hocon.read(f"{key}={value}", f"--set {key}", environ, numbered=False)


def _alias_layers(
    renamed: Sequence[Alias], environ: Mapping[str, str]
) -> Iterator[Text]:
    """
    Give each old key's value to the key of today, above all layers: that it is the
    strongest was found out before.
    """
    for alias in renamed:
        text = f"{join(alias.new)}=${{{join(alias.old)}}}"
        yield hocon.read(text, join(alias.old), environ, numbered=False)


def _defaults(environ: Mapping[str, str], refer: bool = True) -> list[Text]:
    """
    Give the defaults as layers: those that refer to other keys, and the rest.

    @param refer: False to make empty texts of the former.
    """
    references = []
    tree: dict[str, Any] = {}
    for path, key in _fields.walk(Settings):
        section = tree
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = key.default
        if isinstance(key.default, str) and "${" in key.default:
            section[path[-1]] = ""
            reference, brace, rest = key.default.partition("}")
            rest = render_value(rest) if rest else ""
            references.append(f"{join(path)}={reference}{brace}{rest}")
    plain = hocon.from_tree(tree, "defaults")
    if not refer:
        return [plain]
    text = "\n".join(references)
    return [hocon.read(text, "defaults", environ, numbered=False), plain]


def _mp(tree: Mapping[str, Any]) -> dict[str, Any]:
    mp = tree["mp"]
    if not isinstance(mp, dict):
        raise ConfigError("mp", "expected an object")
    return mp


class _Reading:
    """
    One walk over the merged tree that collects faults instead of stopping at one.
    """

    def __init__(self, layers: Sequence[Text], renamed: Sequence[Alias]) -> None:
        self._layers = layers
        self._renamed = {alias.new: alias.old for alias in renamed}
        self._problems: dict[str, ConfigError] = {}

    def settings(self, tree: Mapping[str, Any]) -> Settings:
        """
        Build the settings.

        @raise SettingsError: If anything is wrong with them.
        """
        settings: Settings = self._section(Settings, ("mp",), tree)
        for keys, problem in conflicts(settings):
            if not any(join(key) in self._problems for key in keys):
                self._add(keys[0], problem, keys)
        if self._problems:
            raise SettingsError(list(self._problems.values()))
        return settings

    def _section(
        self, cls: type[Any], path: tuple[str, ...], tree: Mapping[str, Any]
    ) -> Any:
        values: dict[str, Any] = {}
        for attribute in attrs.fields(cls):
            here = (*path, _fields.name_of(attribute))
            written = tree[here[-1]]
            key = _fields.key_of(attribute)
            if key is not None:
                self._value(attribute.name, here, key, written, values)
            elif isinstance(written, dict):
                inner = _fields.subsection(attribute)
                values[attribute.name] = self._section(inner, here, written)
            else:
                self._add(here, f"found {_shown(here, written)}, expected an object")
        return cls(**values)

    def _value(
        self,
        name: str,
        path: tuple[str, ...],
        key: _fields.Key,
        written: object,
        values: dict[str, Any],
    ) -> None:
        try:
            values[name] = key.read(written)
        except ValueError as error:
            self._add(path, f"found {_shown(path, written)}, {error}")

    def _add(
        self, path: tuple[str, ...], problem: str, keys: Sequence[tuple[str, ...]] = ()
    ) -> None:
        written = [self._renamed.get(key, key) for key in keys or (path,)]
        places = (self._place(key) for key in written)
        source = next(filter(None, places), "defaults")
        self._problems[join(path)] = ConfigError(join(written[0]), problem, source)

    def _place(self, path: tuple[str, ...]) -> str | None:
        """
        Tell where the operator set a key, or a part of it; None for a default.
        """
        for layer in self._layers:
            if layer.has(path):
                return layer.place_of(path)
        return None


_LONGEST_SHOWN = 60


def _shown(path: Sequence[str], written: object) -> str:
    """
    Give a value for a message: short, and without secrets.
    """
    shown = mask({path[-1]: written})[path[-1]]
    if shown is None:
        return "null"
    text = render_value(shown)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
