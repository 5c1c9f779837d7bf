"""
HOCON text, read the way the original reads it.

Parsing, merging and substitution are the library's (C{hocon-parser}); this module is
what stands before it. L{outline} goes through a text once and

  - refuses what the original's parser refuses and the library lets pass: C{:} and C{=}
    inside an unquoted value (C{x=127.0.0.1:2181}, C{x=http://a}, C{x=a=b}) and a
    closing brace too many;
  - drops what the original's parser drops and the library refuses: unquoted text behind
    a list or an object on the same line. The original's own reference file has such a
    word (C{nodes:[] s//...}), so it must load;
  - words every syntax error as a sentence with a line, and never quotes the text at
    fault, which may be a password;
  - notes on which line each key was last given a value, for the messages of whoever
    reads the value. The library does not tell.

L{read} and L{Layers} then give whole texts and files to the library. All rows of
operations 1.3 are tests in C{tests/config/test_hocon.py}.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import hocon

from mpush_tw.errors import ConfigError

__all__ = [
    "Outline",
    "SyntaxFault",
    "Text",
    "from_tree",
    "join",
    "merge",
    "outline",
    "plain",
    "read",
    "read_file",
]

_MAX_DEPTH = 50
"""
Levels of braces and brackets. Deeper text is a mistake, and would cost stack here and
in the library.
"""

_BLANK = (
    r"\t\x0b\x0c\r\x1c-\x1f\x20\xa0\u1680\u2000-\u200a"
    r"\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""
White space of HOCON apart from the newline, as the inside of a character class.
"""

_TOKEN = re.compile(
    rf"""
      (?P<blank>   (?: [{_BLANK}] | (?: // | \# ) [^\n]* )+ )
    | (?P<newline> \n )
    | (?P<quoted>  \"\"\" .*? \"\"\"+ | "(?!"") (?: [^"\\\n] | \\. )* " )
    | (?P<reference> \$\{{ (?: "(?: [^"\\\n] | \\. )*" | [^}}"\n] )* \}} )
    | (?P<append>  \+= )
    | (?P<mark>    [{{}}\[\],:=] )
    | (?P<word>    -?[0-9][0-9.]*[eE]\+[0-9]+
                 | (?: (?! // ) [^\n{_BLANK}{{}}\[\],:="$?!@*&^`\\+\#] )+ )
    | (?P<bad>     . )
    """,
    re.VERBOSE | re.DOTALL,
)

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _quoted(path: Sequence[str]) -> str:
    """
    Write a path for the library's getters, which split at dots outside of quotes.
    """
    return ".".join(
        '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in path
    )


class SyntaxFault(Exception):
    """
    A text is not HOCON. Raised by L{outline}, caught by L{read}.

    @ivar line: The line at fault, from 1.
    @ivar problem: What was found and what was expected.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem


@attrs.define
class Outline:
    """
    What L{outline} saw.

    @ivar text: The text without dropped words, of the same length and lines.
    @ivar lines: Dotted key -> line of its last assignment, from 1. Lines of objects
        count for the keys inside only where those have none of their own.
    @ivar dropped: Lines on which text behind a list or an object was dropped.
    """

    text: str
    lines: dict[str, int] = attrs.Factory(dict)
    dropped: list[int] = attrs.Factory(list)


def join(path: Sequence[str]) -> str:
    """
    Write a path as one dotted key, with quotes around elements that need them;
    C{include} needs them because it is a word of the language.
    """
    return ".".join(
        part
        if _PLAIN_KEY.fullmatch(part) and part != "include"
        else json.dumps(part, ensure_ascii=False)
        for part in path
    )


@attrs.frozen
class _Token:
    kind: str
    text: str
    start: int
    blank_before: str


_END = ("newline", ",", "}", "]", "end")


class _Reader:
    """
    One pass over one text; the methods follow the grammar.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._tokens = self._tokenize()
        self._next = next(self._tokens)
        self._pieces: list[tuple[int, int]] = []
        self.result = Outline(text)

    def read(self) -> Outline:
        self._skip_newlines()
        if self._next.kind == "[":
            self._fail("found a list, expected keys")
        if self._next.kind == "{":
            self._advance()
            self._fields((), "}", 1)
            self._skip_newlines()
        self._fields((), "end", 0)
        text = self._text
        for start, end in self._pieces:
            text = text[:start] + " " * (end - start) + text[end:]
        self.result.text = text
        return self.result

    # Tokens

    def _tokenize(self) -> Iterator[_Token]:
        blank = ""
        for match in _TOKEN.finditer(self._text):
            kind = match.lastgroup or "bad"
            if kind == "blank":
                blank = match.group()
                continue
            if kind == "mark":
                kind = match.group()
            yield _Token(kind, match.group(), match.start(), blank)
            blank = ""
        while True:
            yield _Token("end", "", len(self._text), blank)

    def _advance(self) -> _Token:
        token, self._next = self._next, next(self._tokens)
        return token

    def _skip_newlines(self) -> None:
        while self._next.kind == "newline":
            self._advance()

    def _line(self, token: _Token) -> int:
        return bisect.bisect_left(self._newlines, token.start) + 1

    def _fail(self, problem: str, token: _Token | None = None) -> NoReturn:
        raise SyntaxFault(self._line(token or self._next), problem)

    def _fail_reserved(self) -> NoReturn:
        character = self._next.text[0]
        if character == '"':
            self._fail("found a text that its line does not close, expected a quote")
        if character == "$":
            self._fail('found "$" that starts no ${...}; quote the text')
        self._fail(f'found "{character}" outside of quotes; quote the text')

    # Grammar

    def _fields(self, path: tuple[str, ...], closing: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            self._fail(f"found more than {_MAX_DEPTH} levels of braces")
        opened = self._next
        while True:
            self._skip_newlines()
            if self._next.kind == closing:
                if closing != "end":
                    self._advance()
                return
            if self._next.kind == "end":
                self._fail(f'found the end of the text, expected "{closing}"', opened)
            if self._next.kind == ",":
                self._fail("found a comma with nothing before it")
            if self._next.kind == "word" and self._next.text == "include":
                self._include()
            else:
                self._field(path, depth)
            self._separator(closing)

    def _separator(self, closing: str) -> None:
        if self._next.kind not in ("newline", ",", closing, "end"):
            self._fail(f'found "{self._next.text[0]}", expected the end of the line')
        self._skip_newlines()
        if self._next.kind == ",":
            self._advance()

    def _include(self) -> None:
        while self._next.kind not in ("newline", ",", "}", "end"):
            self._advance()

    def _field(self, path: tuple[str, ...], depth: int) -> None:
        first = self._next
        here = (*path, *self._key())
        if self._next.kind in (":", "=", "append"):
            self._advance()
        elif self._next.kind == "newline":
            self._skip_newlines()
            if self._next.kind != "{":
                self._fail("found a key without a value", first)
        elif self._next.kind == "end":
            self._fail("found a key without a value", first)
        elif self._next.kind != "{":
            self._fail(f'found "{self._next.text[0]}" behind a key, expected "="')
        self._skip_newlines()
        self.result.lines[join(here)] = self._line(first)
        self._value(here, depth)

    def _key(self) -> list[str]:
        parts: list[str] = []
        glued = False
        if self._next.kind not in ("word", "quoted"):
            if self._next.kind == "bad":
                self._fail_reserved()
            self._fail(f'found "{self._next.text[0]}", expected a key')
        while self._next.kind in ("word", "quoted"):
            token = self._advance()
            if token.kind == "quoted":
                elements = [_unquote(token.text)]
            else:
                elements = token.text.split(".")
            if parts and (glued or token.blank_before):
                parts[-1] += token.blank_before + elements.pop(0)
            elif parts and not elements[0]:
                elements.pop(0)
            glued = bool(elements) and elements[-1] == "" and token.kind == "word"
            parts += elements
        return parts

    def _value(self, path: tuple[str, ...], depth: int) -> None:
        first = self._next
        container = simple = False
        while self._next.kind not in _END:
            token = self._next
            if token.kind in ("{", "["):
                if simple:
                    self._fail("found text before a list or an object")
                self._advance()
                if token.kind == "{":
                    self._fields(path, "}", depth + 1)
                else:
                    self._list(path, depth + 1)
                container = True
            elif token.kind == "bad":
                self._fail_reserved()
            elif token.kind in (":", "=", "append"):
                self._fail(f'found "{token.text}" outside of quotes; quote the text')
            elif container and token.kind == "word":
                self._drop()
                simple = True
            elif container and token.kind == "quoted":
                self._fail("found text behind a list or an object")
            else:
                simple = simple or token.kind != "reference"
                self._advance()
        if self._next.start == first.start:
            self._fail("found no value", first)

    def _drop(self) -> None:
        token = self._advance()
        line = self._line(token)
        if line not in self.result.dropped:
            self.result.dropped.append(line)
        self._pieces.append((token.start, token.start + len(token.text)))

    def _list(self, path: tuple[str, ...], depth: int) -> None:
        if depth > _MAX_DEPTH:
            self._fail(f"found more than {_MAX_DEPTH} levels of brackets")
        opened = self._next
        while True:
            self._skip_newlines()
            if self._next.kind == "]":
                self._advance()
                return
            if self._next.kind in ("end", "}"):
                self._fail('found no "]" for a list that starts here', opened)
            if self._next.kind == ",":
                self._fail("found a comma with nothing before it")
            self._value(path, depth)
            self._separator("]")


def _unquote(quoted: str) -> str:
    if quoted.startswith('"""'):
        return quoted[3:-3]
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:  # the library will say what is wrong with the escape
        return quoted[1:-1]


def outline(text: str) -> Outline:
    """
    Check a text and note where its keys are.

    @raise SyntaxFault: If the original's parser would refuse it.
    """
    return _Reader(text).read()


@attrs.frozen
class Text:
    """
    One layer of configuration, parsed but with its substitutions still open.

    @ivar name: The file or option, for messages.
    @ivar config: The library's handle.
    @ivar outlines: File name -> what was seen there: this text first, then the files
        that it includes.
    @ivar numbered: Whether line numbers tell anything.
    """

    name: str
    config: hocon.Config
    outlines: dict[str, Outline]
    numbered: bool = True

    def has(self, path: Sequence[str]) -> bool:
        """
        Tell whether this layer gives the key a value, null included.
        """
        return self.config.has(_quoted(path))

    def place_of(self, path: Sequence[str]) -> str:
        """
        Give the file and line where a key, or the nearest object around it, was set.

        Keys of an included file are found by the names that they have inside of it.
        """
        for length in range(len(path), 0, -1) if self.numbered else ():
            key = join(path[:length])
            for name, seen in self.outlines.items():
                if key in seen.lines:
                    return f"{name}:{seen.lines[key]}"
        return self.name


def read(
    text: str,
    name: str,
    environ: Mapping[str, str],
    base_dir: str | None = None,
    numbered: bool = True,
) -> Text:
    """
    Parse one layer.

    @param name: The file or option that the text came from.
    @param environ: Where C{${NAME}} is looked up after the configuration itself.
    @param base_dir: Directory of relative includes.
    @param numbered: False for an option, whose line number would tell nothing.
    @raise ConfigError: If C{text}, or a file that it includes, is not HOCON.
    """
    outlines: dict[str, Outline] = {}

    def clean(raw: str, origin: str) -> str:
        try:
            outlines[origin] = outline(raw)
        except SyntaxFault as fault:
            where = f"{origin}:{fault.line}" if numbered else origin
            raise ConfigError("", fault.problem, where) from None
        return outlines[origin].text

    def read_include(path: str) -> str:
        raw = read_file(path)
        return raw if path.endswith((".json", ".properties")) else clean(raw, path)

    cleaned = clean(text, name)
    try:
        config = hocon.parse(
            cleaned,
            base_dir=base_dir,
            env=dict(environ),
            read_file=read_include,
            resolve_substitutions=False,
            origin_description=name,
        )
    except hocon.ParseError as error:
        where = f"{name}:{error.line}" if numbered else name
        # What the library quotes is a piece of the text, which may be a secret.
        reason = re.sub('"[^"]+"', "a text", _reason(error))
        raise ConfigError("", reason, where) from None
    except (hocon.ResolveError, hocon.ConfigError) as error:
        raise ConfigError("", _reason(error), name) from None
    except OSError as error:
        raise ConfigError(
            "", f"cannot be read: {error.strerror}", error.filename or name
        ) from None
    return Text(name, config, outlines, numbered)


def from_tree(tree: dict[str, Any], name: str) -> Text:
    """
    Make a layer of plain data.

    @raise ConfigError: If there is something in it that is no plain data.
    """
    try:
        config = hocon.from_map(tree, name)
    except hocon.ConfigError as error:
        raise ConfigError("", _reason(error), name) from None
    return Text(name, config, {}, numbered=False)


def read_file(path: str) -> str:
    """
    Read a file as UTF-8, with or without a byte order mark.

    @raise OSError: If the file cannot be read.
    @raise ConfigError: If it is not UTF-8.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            return file.read()
        except UnicodeDecodeError as error:
            raise ConfigError("", "found bytes that are not UTF-8", path) from error


def merge(layers: Sequence[Text]) -> dict[str, Any]:
    """
    Lay texts over each other and resolve all substitutions once, over the whole.

    @param layers: Strongest first; not empty.
    @return: The merged tree as plain data, see L{plain}.
    @raise ConfigError: If a substitution has no value.
    """
    merged = layers[0].config
    for layer in layers[1:]:
        merged = merged.with_fallback(layer.config)
    # The library takes a tree without substitutions for resolved and then hands out
    # its own unfinished objects inside of lists; one that vanishes avoids that.
    merged = merged.with_fallback(
        hocon.parse("nothing=${?nothing}", env={}, resolve_substitutions=False)
    )
    try:
        resolved = merged.resolve()
    except hocon.ResolveError as error:
        where = _substitution(layers, error)
        raise ConfigError("", _reason(error, error.file or ""), where) from None
    except (hocon.ParseError, hocon.ConfigError) as error:
        raise ConfigError("", _reason(error), layers[0].name) from None
    return {
        name: plain(value)
        for name in resolved
        if (value := resolved.get_value(_quoted([name]))) is not None
    }


def _substitution(layers: Sequence[Text], error: hocon.ResolveError) -> str:
    """
    Tell where a substitution without a value stands: the library knows its line but
    not its file.
    """
    for layer in layers:
        for name, seen in layer.outlines.items():
            lines = seen.text.split("\n")
            if error.line <= len(lines) and error.path in lines[error.line - 1]:
                return f"{name}:{error.line}" if layer.numbered else name
    return layers[0].name


def _reason(error: Exception, origin: str = "") -> str:
    return str(error).removeprefix(f"{origin}: ").split(" (HOCON.md")[0]


def plain(value: hocon.HoconValue) -> Any:
    """
    Turn a value of the library into plain data: dict, list, text, number, truth value
    or None.

    A scalar keeps the way it was written, because a password C{007} is not 7: it
    becomes a number only where Python writes that number the same way.
    """
    if isinstance(value, hocon.HoconObject):
        return {name: plain(item) for name, item in value.fields.items()}
    if isinstance(value, hocon.HoconArray):
        return [plain(item) for item in value.items]
    raw = value.raw
    if value.value_type == "null":
        return None
    if value.value_type == "boolean":
        return raw == "true"
    if value.value_type == "number":
        number = float(raw) if re.search("[.eE]", raw) else int(raw)
        return number if str(number) == raw else raw
    return raw
