"""
Makes the validator known to every mpush_tw node of this installation.
"""

from mpush_tw.extensions import Extension
from mpush_tw.interfaces import IBindValidator

http_bind = Extension(
    IBindValidator, "http-bind", "mpush_http_bind.validator.HttpBindValidator"
)
