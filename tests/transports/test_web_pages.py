"""
Tests for L{mpush_tw.transports.web_pages}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.transports.web_pages import Page, load_pages


class PagesTests(SynchronousTestCase):
    """
    Files for browsers.
    """

    def folder(self, **files: str) -> Path:
        """
        Make a folder with files; a double underscore is a dot.
        """
        path = Path(self.mktemp())
        path.mkdir()
        for name, content in files.items():
            (path / name.replace("__", ".")).write_text(content)
        return path

    def test_files(self) -> None:
        """
        Each file is there by its name, with its type.
        """
        pages = load_pages(self.folder(index__html="<p>", mpush__js="let a"))
        self.assertEqual(set(pages), {b"/index.html", b"/mpush.js"})
        script = pages[b"/mpush.js"]
        self.assertEqual(script.content, b"let a")
        self.assertEqual(script.content_type, "text/javascript; charset=utf-8")

    def test_others(self) -> None:
        """
        What browsers do not need is not served: other kinds of files, and folders.
        """
        path = self.folder(notes__txt="x", __init____py="", README="x")
        (path / "more.js").mkdir()
        self.assertEqual(set(load_pages(path)), {b"/index.html"})

    def test_no_files(self) -> None:
        """
        Without files there is a small page that says what this port is.
        """
        for folder in (self.folder(), Path(self.mktemp())):
            page = load_pages(folder)[b"/index.html"]
            self.assertIn(b"WebSocket port", page.content)
            self.assertEqual(page.content_type, "text/html; charset=UTF-8")

    def test_own(self) -> None:
        """
        The package has a page.
        """
        self.assertIn(b"<!DOCTYPE html>", load_pages()[b"/index.html"].content)

    def test_etag(self) -> None:
        """
        Other bytes have another tag, the same ones the same.
        """
        one, two = Page.of(b"a", "text/html"), Page.of(b"b", "text/html")
        self.assertNotEqual(one.etag, two.etag)
        self.assertEqual(one.etag, Page.of(b"a", "text/html").etag)
        self.assertRegex(one.etag, '^"[0-9a-f]+"$')
