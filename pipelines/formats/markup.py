"""Markdown and HTML to text, in a process of its own: parsers take quadratic time and memory on hostile nesting, and a crash of theirs
must cost one document. The process is bound by the kernel, in processor time and in memory, for each document anew.

Run as a script it is that process: it imports nothing of this project.
"""

import contextlib
import json
import resource
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

UNREAD = ["script", "style", "template", "noscript"]
BLOCKS = (
    "address, article, aside, blockquote, br, caption, dd, details, dialog, div, dl, dt, fieldset, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, legend, li, main, nav, ol, option, p, pre, section, summary, table, tr, ul"
)
BREAK = "\u2029"
"""Stands for a new line while the white space of the source, which means nothing in HTML, is collapsed."""
HEADINGS = "h1, h2, h3, h4, h5, h6"
MARKDOWN_CHARACTERS = 4_000_000
"""Longer Markdown is taken as it stands: its parser takes two seconds and sixty megabytes for a million characters."""
MEMORY_BYTES = 1 << 30
MEMORY_SHARE = 40
"""What the process may use: so many bytes, and so many more for each byte of the document."""
_REQUEST = struct.Struct("<8sIQ")
"""Format, seconds, and length of the document that follows."""
_REPLY = struct.Struct("<Q")


class MarkupError(Exception):
    """A document that could not be read within its bounds."""


def read_markup(source: str, format_: str, seconds: int) -> tuple[str, str | None]:
    """What a reader of `source` ("markdown" or "html") sees, one line a block, and its title: that of the page, or the first heading.

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

    def read(self, source: str, format_: str, seconds: int) -> tuple[str, str | None]:
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
        text, title = json.loads(reply)
        return text, title

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


def extract(source: str, format_: str) -> tuple[str, str | None]:
    """What `read_markup` gives, here, and within no bounds."""
    if format_ == "html":
        return html_text(source, "title")
    if len(source) > MARKDOWN_CHARACTERS:
        return source, None
    return html_text(_markdown().render(source), HEADINGS)


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def html_text(html: str, title: str) -> tuple[str, str | None]:
    """What a reader of `html` sees, one line a block, and the text of the first element that the selector `title` finds."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    tree.strip_tags(UNREAD)
    heading = tree.css_first(title)
    name = " ".join(heading.text().split()) if heading else ""
    _mark_lines(tree)
    lines = (" ".join(line.split()) for line in (tree.body.text() if tree.body else "").split(BREAK))
    return "\n".join(filter(None, lines)), name or None


def _mark_lines(tree: Any) -> None:
    inner: set[int] = set()
    for preformatted in tree.css("pre"):
        if preformatted.mem_id in inner:  # done with the one around it
            continue
        for node in list(preformatted.traverse(include_text=True)):
            if node.tag == "-text":
                node.replace_with((node.text() or "").replace("\n", BREAK))
            elif node.tag == "pre":
                inner.add(node.mem_id)
    for block in tree.css(BLOCKS):
        block.insert_before(BREAK)
        block.insert_after(BREAK)
    for cell in tree.css("td, th"):
        cell.insert_after(" ")


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
