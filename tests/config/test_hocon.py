"""
Tests for L{mpush_tw.config.hocon}: the rows of operations 1.3.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import hocon
from mpush_tw.errors import ConfigError


def parse(text: str, **environ: str) -> dict[str, Any]:
    return hocon.merge([hocon.read(text, "test.conf", environ)])


class ValueTests(SynchronousTestCase):
    """
    What the original's files are made of.
    """

    def assert_parsed(self, text: str, **expected: Any) -> None:
        self.assertEqual(parse(text), expected, text)

    def test_dotted_key(self) -> None:
        """A dotted key is a path."""
        self.assert_parsed("a.b.c=1", a={"b": {"c": 1}})

    def test_quoted_key(self) -> None:
        """A quoted key is one element, dots or not."""
        self.assert_parsed(
            '"10.0.10.156":"111.1.32.137"', **{"10.0.10.156": "111.1.32.137"}
        )

    def test_hyphen_in_key(self) -> None:
        """A hyphen is an ordinary character of a key."""
        self.assert_parsed("mp.a-b=1\nmp.a.b=2", mp={"a-b": 1, "a": {"b": 2}})

    def test_separators(self) -> None:
        """Before a brace the separator is optional; = and : are equal."""
        for text in ("x { y: 1 }", "x={ y=1 }", "x:{y:1}", "x\n{ y=1 }"):
            self.assert_parsed(text, x={"y": 1})

    def test_objects_merge(self) -> None:
        """An object given twice has the keys of both."""
        self.assert_parsed("x {a:1}\nx {b:2}", x={"a": 1, "b": 2})

    def test_other_values_replace(self) -> None:
        """A plain value in between makes an object start over."""
        self.assert_parsed("x {a:1}\nx=3\nx {b:2}", x={"b": 2})
        self.assert_parsed("x=[1]\nx=[2]", x=[2])

    def test_commas(self) -> None:
        """Commas at the end of a line are optional, a trailing one is allowed."""
        self.assert_parsed("x=a,\nx=b", x="b")
        self.assert_parsed("x {a:1,\nb:2,\n}", x={"a": 1, "b": 2})
        self.assert_parsed("x=1,y=2", x=1, y=2)

    def test_comments(self) -> None:
        """Two slashes or a hash start a comment, with or without a blank before."""
        self.assert_parsed("x=10k //c", x="10k")
        self.assert_parsed("x=1 # c", x=1)
        self.assert_parsed("x=single//single,cluster", x="single")
        self.assert_parsed('x=""//your password', x="")

    def test_no_comment_in_quotes(self) -> None:
        """Inside quotes nothing is a comment."""
        self.assert_parsed('x="http://a#b"', x="http://a#b")

    def test_single_slash(self) -> None:
        """A path needs no quotes."""
        self.assert_parsed("x=/opt/mp/logs", x="/opt/mp/logs")

    def test_address(self) -> None:
        """An address needs no quotes."""
        self.assert_parsed("x=127.0.0.1", x="127.0.0.1")

    def test_inner_blanks(self) -> None:
        """Blanks inside unquoted text stay, blanks around it go."""
        self.assert_parsed("x=  a b  c  ", x="a b  c")

    def test_lists(self) -> None:
        """In a list a newline separates like a comma."""
        self.assert_parsed('x=[a,b c,"d"]', x=["a", "b c", "d"])
        self.assert_parsed("x=[1,\n2\n3,]", x=[1, 2, 3])

    def test_objects_in_lists(self) -> None:
        """A list may hold objects and lists."""
        self.assert_parsed("x=[{a=1}, [2]]", x=[{"a": 1}, [2]])

    def test_lists_concatenate(self) -> None:
        """Two lists behind each other are one."""
        self.assert_parsed("x=[1] [2]", x=[1, 2])

    def test_self_reference(self) -> None:
        """A key may be defined from its earlier value."""
        self.assert_parsed("x=[1]\nx=${x} [2]", x=[1, 2])
        self.assert_parsed("x=[1]\nx+=2", x=[1, 2])

    def test_substitution(self) -> None:
        """A reference stands for another key's value, also inside a text."""
        self.assert_parsed("y=q\nx=${y}/z", y="q", x="q/z")

    def test_optional_substitution(self) -> None:
        """An optional reference without a value vanishes, alone with its key."""
        self.assert_parsed("x=${?nope}/z", x="/z")
        self.assert_parsed("x=${?nope}")

    def test_environment(self) -> None:
        """A reference may name a variable of the given environment."""
        self.assertEqual(parse("x=${?NAME}", NAME="v"), {"x": "v"})

    def test_words_concatenate(self) -> None:
        """A truth value with another word is a text."""
        self.assert_parsed("x=true yes", x="true yes")

    def test_numbers_keep_their_spelling(self) -> None:
        """A number that Python would write otherwise keeps its spelling."""
        self.assert_parsed("x=010", x="010")
        self.assert_parsed("x=1.0", x=1.0)
        self.assert_parsed("x=1.50", x="1.50")
        self.assert_parsed("x=1e3", x="1e3")
        self.assert_parsed("x=1e+3", x="1e+3")

    def test_null(self) -> None:
        """A null is a key without a value."""
        self.assert_parsed("x=null", x=None)

    def test_strings(self) -> None:
        """Quoted text has JSON's escapes, triple quotes have none."""
        self.assert_parsed(r'x="a\u0041\n"', x="aA\n")
        self.assert_parsed('x="""a"b\\n\nc"""', x='a"b\\n\nc')
        self.assert_parsed('x="""a""""', x='a"')
        self.assert_parsed("x=中文 # 注释", x="中文")

    def test_byte_order_mark_and_carriage_returns(self) -> None:
        """A file written on Windows reads the same."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\xef\xbb\xbfx=a\r\ny {\r\n z=1\r\n}\r\n")
        self.assertEqual(parse(hocon.read_file(path)), {"x": "a", "y": {"z": 1}})

    def test_empty(self) -> None:
        """Nothing at all, and comments only, are an empty configuration."""
        self.assert_parsed("")
        self.assert_parsed("# nothing\n\n")

    def test_braces_around_everything(self) -> None:
        """The whole text may stand in braces."""
        self.assert_parsed("{\n  a=1\n}\n", a=1)

    def test_dropped_text(self) -> None:
        """Text behind a list or an object is dropped, as the original does."""
        for text in ("x=[] s//c", "x=[] s t", "x=[]s"):
            self.assert_parsed(text, x=[])
        self.assert_parsed("x={a:1} s\ny=2", x={"a": 1}, y=2)
        self.assert_parsed("o {x=[1,2] t}", o={"x": [1, 2]})


class RefusedTests(SynchronousTestCase):
    """
    What the original's parser does not take.
    """

    def refuse(self, text: str) -> ConfigError:
        return self.assertRaises(ConfigError, parse, text)

    def test_reserved_characters(self) -> None:
        """Reserved characters must be quoted, and the message says which."""
        for text, character in (
            ("x=127.0.0.1:2181", ":"),
            ("x=http://a", ":"),
            ("x=a=b", "="),
            ("x=mp@q", "@"),
            ("x=a*b", "*"),
            ("x=a+b", "+"),
            ("x=a\\b", "\\"),
            ("x=[a:b]", ":"),
            ('x="a":"b"', ":"),
            ("x=a^b", "^"),
            ("x=a?b", "?"),
        ):
            self.assertEqual(
                self.refuse(text).problem,
                f'found "{character}" outside of quotes; quote the text',
                text,
            )

    def test_two_keys_on_a_line(self) -> None:
        """Two keys on one line need a comma between them."""
        self.refuse("x {a=1 b=2}")

    def test_two_commas(self) -> None:
        """Two commas in a row are an error."""
        for text in ("x=a,,y=b", "x=[1,,2]", ",x=1", "x=[,]", "x=1\n,\n,y=2"):
            self.assertIn("comma", self.refuse(text).problem)

    def test_text_before_a_list(self) -> None:
        """Text before a list or an object is an error."""
        for text in ("x=s [1]", "x=s {a=1}", "x=[1] s [2]"):
            self.refuse(text)

    def test_unresolved(self) -> None:
        """A reference to nothing is an error that names it and its place."""
        error = self.refuse("a=1\nx=${no.such}")
        self.assertIn("${no.such}", error.problem)
        self.assertEqual(error.source, "test.conf:2")

    def test_missing_parts(self) -> None:
        """Missing values, braces, brackets and quotes are errors."""
        for text in (
            "x",
            "x=",
            "x=\n",
            "x\ny=1",
            "{x=1",
            "x=1}",
            "x {",
            "x=[1",
            "x {y=[1}",
            'x="abc',
            'x="abc\n"',
            '"""x',
            "x=$y",
            "x=${y",
            "[1]",
            "=1",
            "x]=1",
            "x= +=1",
        ):
            self.refuse(text)

    def test_line(self) -> None:
        """The message names the file and the line."""
        error = self.refuse("a=1\n\n# c\nb {\n  c=x:y\n}\n")
        self.assertEqual(error.source, "test.conf:5")

    def test_unclosed_brace_is_found_where_it_opens(self) -> None:
        """For a brace that is never closed the message names its line."""
        self.assertEqual(self.refuse("a=1\nb {\nc=1\n").source, "test.conf:2")

    def test_value_is_not_quoted(self) -> None:
        """A message does not repeat the value, which may be a password."""
        for text in (
            "password=hunter2:x",
            'password="hunter2',
            'password="hunter2\\q"',
            "password=hunter2 [1]",
            "password=[hunter2",
            "password {a=1} \"hunter2\"",
            "password=${hunter2",
            "hunter2..x=1",
        ):
            self.assertNotIn("hunter2", str(self.refuse(text)), text)

    def test_depth(self) -> None:
        """Braces without end are refused instead of running out of stack."""
        self.refuse("x=" + "[" * 100000)
        self.refuse("x {" * 100000)

    def test_endless_substitution(self) -> None:
        """Keys that refer to each other are an error."""
        self.refuse("a=${b}\nb=${a}")

    @given(st.text(alphabet='ab.=:{}[],"$?\\+#/ \n1-', max_size=40))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """Whatever the text, it is read or refused, and nothing else happens."""
        try:
            parse(text)
        except ConfigError:
            pass


class OutlineTests(SynchronousTestCase):
    """
    Where keys stand.
    """

    def test_lines(self) -> None:
        """Every key is known with the line of its last assignment."""
        seen = hocon.outline('a=1\nb {\n  c.d=2\n  "e.f"=[\n1\n]\n}\na=3\n')
        self.assertEqual(
            seen.lines, {"a": 8, "b": 2, "b.c.d": 3, 'b."e.f"': 4}
        )

    def test_dropped_lines(self) -> None:
        """Dropped text is known by its line, and leaves all others where they are."""
        seen = hocon.outline("a=[1] x y\nb=2\n")
        self.assertEqual(seen.dropped, [1])
        self.assertEqual(seen.text, "a=[1]    \nb=2\n")

    def test_nearest_object(self) -> None:
        """For a key that is not set the place is that of the object around it."""
        layer = hocon.read("a {\n b {\n }\n}", "f", {})
        self.assertEqual(layer.place_of(["a", "b", "c"]), "f:2")
        self.assertEqual(layer.place_of(["x"]), "f")


class IncludeTests(SynchronousTestCase):
    """
    Files that name others.
    """

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def write(self, name: str, text: str) -> str:
        path = os.path.join(os.path.abspath(self.directory), name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def read(self, text: str) -> hocon.Text:
        return hocon.read(text, "main.conf", {}, os.path.abspath(self.directory))

    def test_include(self) -> None:
        """An included file is merged where it stands."""
        self.write("other.conf", "nodes:[] s//slip\nb=1")
        layer = self.read('a=1\ninclude "other.conf"\nb=2')
        self.assertEqual(hocon.merge([layer]), {"a": 1, "nodes": [], "b": 2})

    def test_missing_include(self) -> None:
        """A missing included file is no error."""
        layer = self.read('include "nope.conf"\na=1')
        self.assertEqual(hocon.merge([layer]), {"a": 1})

    def test_error_in_include(self) -> None:
        """An error in an included file names that file."""
        path = self.write("other.conf", "a=1\nb=x:y")
        error = self.assertRaises(ConfigError, self.read, 'include "other.conf"')
        self.assertEqual(error.source, f"{path}:2")

    def test_circle(self) -> None:
        """A file that includes itself is refused."""
        self.write("other.conf", 'include "other.conf"')
        self.assertRaises(ConfigError, self.read, 'include "other.conf"')

    def test_place_in_include(self) -> None:
        """A key of an included file is found there."""
        path = self.write("other.conf", "\na.b=1")
        layer = self.read('include "other.conf"')
        self.assertEqual(layer.place_of(["a", "b"]), f"{path}:2")


class MergeTests(SynchronousTestCase):
    """
    Layers over each other.
    """

    def test_stronger_wins(self) -> None:
        """The first layer wins; objects merge."""
        layers = [hocon.read(t, t, {}) for t in ("a.b=1", "a {b=2, c=3}\nd=4")]
        self.assertEqual(hocon.merge(layers), {"a": {"b": 1, "c": 3}, "d": 4})

    def test_references_see_all_layers(self) -> None:
        """A weak layer's reference sees a strong layer's value."""
        layers = [hocon.read(t, t, {}) for t in ("home=/x", "home=/y\nlog=${home}/l")]
        self.assertEqual(hocon.merge(layers), {"home": "/x", "log": "/x/l"})

    def test_reference_to_the_weaker_value(self) -> None:
        """A strong layer may add to a weak layer's list."""
        layers = [hocon.read(t, t, {}) for t in ("x=${x} [2]", "x=[1]")]
        self.assertEqual(hocon.merge(layers), {"x": [1, 2]})
