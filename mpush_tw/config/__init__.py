"""
The configuration of a node: HOCON text on one side, frozen settings on the other.

L{load_settings} is the door that the C{mpush} command and C{twistd mpush} use;
L{Settings} and its sections are what everything else is given. The reference of all
keys is C{etc/reference.conf}, the guide C{docs/configuration.md}.
"""

from mpush_tw.config._checks import key_conflicts
from mpush_tw.config._notices import Notice
from mpush_tw.config.loader import LoadedSettings, SettingsError, load_settings
from mpush_tw.config.render import mask, render
from mpush_tw.config.settings import Settings

__all__ = [
    "LoadedSettings",
    "Notice",
    "Settings",
    "SettingsError",
    "key_conflicts",
    "load_settings",
    "mask",
    "render",
]
