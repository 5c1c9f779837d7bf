"""
The files that browsers get from a node: the page of the WebSocket port and the script
that it uses (server 10.2).

They lie in C{mpush_tw/web}; they are read once and kept in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable

import attrs

INDEX = "index.html"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=UTF-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}
"""
What is served, by the end of its name.
"""

_NO_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MPush</title>
<h1>MPush</h1>
<p>This is the WebSocket port of a push server. Pages connect to it with
<code id="url">ws://this-host/</code>.</p>
<script>
document.getElementById("url").textContent =
  location.href.replace(/^http/, "ws").replace(/index\\.html$/, "");
</script>
"""
"""
What stands in for the page where it was not installed.
"""


@attrs.frozen
class Page:
    """
    A file.

    @ivar content: Its bytes.
    @ivar content_type: Value of C{Content-Type}.
    @ivar etag: Value of C{ETag}; another one for other bytes.
    """

    content: bytes
    content_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, content_type: str) -> Page:
        """
        Make a file of bytes.
        """
        digest = hashlib.sha256(content).hexdigest()[:24]
        return cls(content, content_type, f'"{digest}"')


def load_pages(folder: Traversable | None = None) -> Mapping[bytes, Page]:
    """
    Read the files.

    @param folder: Where they are; C{None} for those of this package.
    @return: By the target of their requests, C{/index.html} and so on. There always is
        a C{/index.html}.
    """
    if folder is None:
        folder = resources.files("mpush_tw") / "web"
    pages = dict(_files(folder)) if folder.is_dir() else {}
    index = f"/{INDEX}".encode()
    pages.setdefault(index, Page.of(_NO_PAGE.encode(), _TYPES[".html"]))
    return pages


def _files(folder: Traversable) -> Iterator[tuple[bytes, Page]]:
    for file in folder.iterdir():
        ending = file.name[file.name.rfind(".") :]
        if file.is_file() and ending in _TYPES:
            page = Page.of(file.read_bytes(), _TYPES[ending])
            yield f"/{file.name}".encode(), page
