"""How the demo looks: headings, commands, figures and answers that fit 80 columns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDTH = 80
INDENT = 2


class Page:
    """Where the story is written."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sections = 0
        console.width = min(console.width, WIDTH)

    def heading(self, title: str) -> None:
        self._sections += 1
        self._console.print()
        self._console.rule(f"[bold]{self._sections}. {title}[/bold]", align="left")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def command(self, text: str) -> None:
        """What a person would type."""
        self._console.print(f"\n[green]$[/green] [bold]{escape(text)}[/bold]", highlight=False)

    def listing(self, text: str) -> None:
        """A file, as it is."""
        self._console.print(Padding(Text(text.rstrip(), style="dim"), (0, 0, 0, INDENT), expand=False))

    def figures(self, values: Mapping[str, str]) -> None:
        table = Table.grid(padding=(0, 2))
        for name, value in values.items():
            table.add_row(name, value)
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))

    def answers(self, hits: Sequence[Mapping[str, Any]]) -> None:
        """Search results: the best in full, of the others a line."""
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(ratio=1)
        for rank, hit in enumerate(hits):
            term, gloss = term_and_gloss(hit)
            line = Text.assemble((term, "" if rank else "bold"), ": ", gloss, no_wrap=rank > 0, overflow="ellipsis" if rank else "fold")
            table.add_row(f"{hit['score']:.3f}", line)
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))

    def compare(self, titles: tuple[str, str], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
        """Two lists of results side by side, by their terms."""
        rows = zip((term_and_gloss(hit)[0] for hit in before), (term_and_gloss(hit)[0] for hit in after), strict=False)
        self.table(titles, rows)

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for title in titles:
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*map(escape, row))
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))

    def why(self, text: str) -> None:
        """One sentence on why the section matters."""
        self._console.print(f"[cyan]Why this matters:[/cyan] {text}", highlight=False)


def term_and_gloss(hit: Mapping[str, Any]) -> tuple[str, str]:
    """The two text fields of a result, which a blank line joins."""
    term, _, gloss = hit["text"].partition("\n\n")
    return term, gloss


def words_in_common(question: str, hit: Mapping[str, Any]) -> list[str]:
    """Words of `question` that the result's text has too, in any case."""
    return sorted(set(_words(question)) & set(_words(hit["text"])))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def seconds_of(seconds: float) -> str:
    """`12.3 s`, `45 ms`."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
