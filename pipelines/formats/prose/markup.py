"""Markdown and HTML to text, in a process of its own: parsers take quadratic time and memory on hostile nesting, and a crash of theirs
must cost one document. The process is bound by the kernel, in processor time and in memory, for each document anew.

Run as a script it is that process: it imports nothing of this project.
"""

import contextlib
import json
import re
import resource
import struct
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

UNREAD = ["script", "style", "template", "noscript"]
BLOCKS = (
    "address, article, aside, blockquote, br, caption, dd, details, dialog, div, dl, dt, fieldset, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, legend, li, main, nav, ol, option, p, pre, section, summary, table, tr, ul"
)
BREAK = "\u2029"
"""Stands for a new line while the white space of the source, which means nothing in HTML, is collapsed."""
CODE_LINE, SPACE, TAB = "\ufdd0", "\ufdd1", "\ufdd2"
"""Stand meanwhile for the beginning of a further line of preformatted text, and for its white space. Unicode keeps them out of texts."""
_KEEP = str.maketrans({"\n": BREAK + CODE_LINE, " ": SPACE, "\u00a0": SPACE, "\t": TAB})
_KEPT = str.maketrans({SPACE: " ", TAB: "\t"})
_STRAY = str.maketrans(dict.fromkeys(CODE_LINE + SPACE + TAB))
HEADINGS = "h1, h2, h3, h4, h5, h6"
MARKDOWN_CHARACTERS = 4_000_000
"""Longer Markdown is taken as it stands: its parser takes two seconds and sixty megabytes for a million characters."""
SWALLOWING = frozenset(UNREAD) | {"iframe", "noembed", "noframes", "select", "textarea", "title", "xmp"}
"""Elements that take in, hide or run together all that follows, up to their own closing tag."""
WHOLE_PAGE = frozenset({"frameset", "plaintext"})
"""Elements that take a page over, closed or not."""
VOID = frozenset({"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"})
_NAME = re.compile(r"<(/?)([a-z][a-z0-9-]*)", re.IGNORECASE)
_TAG = re.compile(
    r"""</?[a-z][a-z0-9-]*(?:\s[^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*)?/?>|<!--.*?-->|<[?!][^>]*>""", re.IGNORECASE | re.DOTALL
)
_CLOSING = re.compile(r"</([a-z][a-z0-9-]*)", re.IGNORECASE)
_LONG_BLOCKS = [
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for begin, end in [
        (r"<(?:script|pre|style|textarea)(?=[\s>])", "</(?:script|pre|style|textarea)>"),
        ("<!--", "-->"),
        (r"<\?", r"\?>"),
        (r"<!\[CDATA\[", "]]>"),
        ("<![a-z]", ">"),
    ]
]
"""How blocks of HTML begin in Markdown that do not end at a blank line, and how they end (CommonMark 0.31, kinds 1 to 5)."""
_OPENED = re.compile(r"(---|\+\+\+)[ \t]*\r?\n")
_CLOSED = {"---": re.compile(r"^(?:---|\.\.\.)[ \t]*\r?$", re.MULTILINE), "+++": re.compile(r"^\+\+\+[ \t]*\r?$", re.MULTILINE)}
"""The first line of front matter, and its last: YAML, or TOML."""
_KEY = re.compile(r"""\s*["']?\w[\w .-]*["']?\s*[:=]""")
MEMORY_BYTES = 1 << 30
MEMORY_SHARE = 40
"""What the process may use: so many bytes, and so many more for each byte of the document."""
_REQUEST = struct.Struct("<8sIQ")
"""Format, seconds, and length of the document that follows."""
_REPLY = struct.Struct("<Q")


class MarkupError(Exception):
    """A document that could not be read within its bounds."""


class Extract(NamedTuple):
    """What is read of a document."""

    text: str
    """What a reader sees, one line a block; preformatted text line by line, as it is indented."""
    title: str | None
    """That of the page or of its front matter, else the first heading."""
    fields: dict[str, str]
    """Of its front matter; lists and objects as JSON."""


def read_markup(source: str, format_: str, seconds: int) -> Extract:
    """What a reader of `source` ("markdown" or "html") sees.

    Raises MarkupError beyond `seconds` of processor time, or beyond the memory that a document of its length may take.
    """
    return _process().read(source, format_, seconds)


@cache
def _process() -> "_Process":
    return _Process()


class _Process:
    """Started when it is first asked, and again after it died. Ends when its input does: with this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def read(self, source: str, format_: str, seconds: int) -> Extract:
        document = source.encode()
        with self._lock:
            process = self._running = self._running or self._start()
            assert process.stdin
            assert process.stdout
            reply = b""
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(_REQUEST.pack(format_.encode(), seconds, len(document)) + document)
                process.stdin.flush()
                reply = _read_frame(process.stdout)
            if not reply:
                self._end()
                raise MarkupError(
                    f"a parser that took more than {seconds} s of processor time or {_memory(len(document)) >> 20:,} MB, or died"
                )
        return Extract(*json.loads(reply))

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            # -P: without this folder on the path, where names like `tokens` would hide others
            [sys.executable, "-P", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _end(self) -> None:
        assert self._running
        self._running.kill()
        with contextlib.suppress(BrokenPipeError):
            self._running.communicate()
        self._running = None


def _read_frame(stream: IO[bytes]) -> bytes:
    head = stream.read(_REPLY.size)
    return stream.read(_REPLY.unpack(head)[0]) if len(head) == _REPLY.size else b""


def _memory(length: int) -> int:
    return MEMORY_BYTES + MEMORY_SHARE * length


def extract(source: str, format_: str) -> Extract:
    """What `read_markup` gives, here, and within no bounds."""
    if format_ == "html":
        return Extract(*html_text(source, "title"), {})
    body, fields = front_matter(source)
    text, heading = (body, None) if len(body) > MARKDOWN_CHARACTERS else html_text(_markdown().render(body), HEADINGS)
    return Extract(text, " ".join(fields.get("title", "").split()) or heading, fields)


# Front matter


def front_matter(source: str) -> tuple[str, dict[str, str]]:
    """Markdown without the front matter that it may begin with, and the fields of that. What is broken of it is left, as code."""
    opened = _OPENED.match(source)
    closed = opened and _CLOSED[opened[1]].search(source, opened.end())
    if not opened or not closed:
        return source, {}
    inner, rest = source[opened.end() : closed.start()], source[closed.end() :]
    try:
        fields = _fields(inner, opened[1])
    except (ValueError, RecursionError):
        fields = None
    if fields is not None:
        return rest, fields
    # else two lines of Markdown, with text between them that would be taken for a heading if it is one of fields
    return ("    " + inner.replace("\n", "\n    ") + "\n\n" + rest if _KEY.match(inner) else source), {}


def _fields(inner: str, mark: str) -> dict[str, str] | None:
    """None if it has no fields. Raises ValueError if it cannot be read, RecursionError if it is nested too deep."""
    read = tomllib.loads(inner) if mark == "+++" else _yaml(inner)
    if not isinstance(read, dict):
        return None
    texts = {str(key): _field_text(value) for key, value in read.items()}
    return {key: text for key, text in texts.items() if text not in {"", "~", "null"}}


def _yaml(inner: str) -> Any:
    """Scalars as they are written: 1.10 is no number here, and no is no boolean."""
    import yaml

    try:
        return yaml.load(inner, getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506 - makes strings, lists and dicts only
    except yaml.YAMLError:
        raise ValueError from None


def _field_text(value: object) -> str:
    plain = (
        value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":")).strip('"')
    )
    return plain.encode(errors="replace").decode()  # an escape may make half a surrogate pair


# Markdown


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block.html_block import html_block

    def closed_html_block(state: Any, line: int, end: int, silent: bool) -> bool:
        return _ends(state.src, state.bMarks[line] + state.tShift[line]) and html_block(state, line, end, silent)

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parser.block.ruler.at("html_block", closed_html_block, {"alt": ["paragraph", "reference", "blockquote"]})
    parser.core.ruler.after("inline", "names", _names_as_written)
    return parser


def _ends(source: str, place: int) -> bool:
    """Whether a block of HTML that would begin at `place` has an end, if it is of a kind that goes on beyond a blank line."""
    return all(end.search(source, place) for begin, end in _LONG_BLOCKS if begin.match(source, place))


def _names_as_written(state: Any) -> None:
    """Text that names an element stays text: only what is written as markup is passed on as such."""
    for token in state.tokens:
        if token.type == "html_block":
            token.content = _block_markup(token.content)
        elif token.type == "inline":
            _mark_inline(token.children)


def _mark_inline(children: list[Any]) -> None:
    """A tag within a line is markup if it is closed there, has attributes, or needs no end; never one that would hide text."""
    tags = [(child, name) for child in children if child.type == "html_inline" and (name := _NAME.match(child.content))]
    closings = Counter(name[2].lower() for _, name in tags if name[1])
    opened = set()
    for tag, name in tags:
        element = name[2].lower()
        if name[1]:
            closings[element] -= 1
            markup = element in opened or (element in _blocks() and element not in SWALLOWING)
        else:
            markup = element not in SWALLOWING | WHOLE_PAGE and (closings[element] > 0 or _needs_no_end(tag.content, element))
            opened |= {element} if markup else set()
        if not markup:
            tag.type = "text"


def _needs_no_end(tag: str, element: str) -> bool:
    """Whether it is markup also without a closing tag. Attributes have values: <T extends Foo> is none."""
    return element in VOID or "=" in tag


def _block_markup(html: str) -> str:
    """A block of HTML, in which that is text what is no tag, is no element, or takes in what follows the block."""
    last = {closing[1].lower(): closing.start() for closing in _CLOSING.finditer(html)}
    parts, place = [], 0
    while (start := html.find("<", place)) >= 0:
        parts.append(html[place:start])
        tag, name = _TAG.match(html, start), _NAME.match(html, start)
        place = tag.end() if tag else start + 1
        markup = tag is not None
        if tag and name and not name[1]:
            element = name[2].lower()
            closed = last.get(element, -1) > start
            if element in SWALLOWING | WHOLE_PAGE:
                markup = closed and element not in WHOLE_PAGE
            else:
                markup = closed or element in _blocks() or _needs_no_end(tag[0], element)
        parts.append(html[start:place] if markup else "&lt;" + html[start + 1 : place])
    return "".join([*parts, html[place:]])


@cache
def _blocks() -> frozenset[str]:
    """Elements that a block of HTML may begin with, and be closed by in another one."""
    from markdown_it.common.html_blocks import block_names

    return frozenset(block_names)


# HTML


def html_text(html: str, title: str) -> tuple[str, str | None]:
    """What a reader of `html` sees, one line a block, and the text of the first element that the selector `title` finds."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html.translate(_STRAY))
    tree.strip_tags(UNREAD)
    heading = tree.css_first(title)
    name = " ".join(heading.text().split()) if heading else ""
    _mark_lines(tree)
    return "\n".join(_lines(tree.body.text() if tree.body else "")), name or None


def _lines(marked: str) -> list[str]:
    """Lines without the white space that means nothing. Blank ones are kept within preformatted text."""
    lines: list[str] = []
    blank = 0
    for line in marked.split(BREAK):
        code = line.startswith(CODE_LINE)
        shown = " ".join(line.removeprefix(CODE_LINE).split()).translate(_KEPT).rstrip()
        if shown:
            lines += [*([""] * blank if code else ()), shown]
            blank = 0
        elif code:
            blank += 1
    return lines


def _mark_lines(tree: Any) -> None:
    inner: set[int] = set()
    for preformatted in tree.css("pre"):
        if preformatted.mem_id in inner:  # done with the one around it
            continue
        for node in list(preformatted.traverse(include_text=True)):
            if node.tag == "-text":
                node.replace_with((node.text() or "").translate(_KEEP))
            elif node.tag == "pre":
                inner.add(node.mem_id)
    for block in tree.css(BLOCKS):
        block.insert_before(BREAK)
        block.insert_after(BREAK)
    for cell in tree.css("td, th"):
        cell.insert_after(" ")


# The process


def _bound(seconds: int, memory: int) -> None:
    """Of this process, from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)
    _limit(resource.RLIMIT_AS, memory)


def _limit(kind: int, most: int) -> None:
    """The soft limit: the hard one may be set from outside, and cannot be raised."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer until there are no more requests. Whoever exceeds the bounds dies, or raises and dies."""
    while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
        format_, seconds, length = _REQUEST.unpack(head)
        _bound(seconds, _memory(length))
        source = requests.read(length).decode()
        reply = json.dumps(extract(source, format_.rstrip(b"\0").decode())).encode()
        replies.write(_REPLY.pack(len(reply)) + reply)
        replies.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _serve(sys.stdin.buffer, sys.stdout.buffer)
