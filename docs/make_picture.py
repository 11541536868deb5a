"""Makes docs/terminal.svg: what a terminal shows of real commands on the demo's corpus. Takes a minute or two.

python docs/make_picture.py          # or: make picture
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.demo.corpus import by_part_of_speech, lay_out, read_glosses, revised
from flows.demo.story import COLLECTION, CONFIG, QUESTIONS

PICTURE = Path(__file__).with_name("terminal.svg")
WIDTH = 108
FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Of rich's template: they would be fetched from elsewhere."""


def make(folder: Path) -> str:
    """The picture, of commands that run in an empty folder."""
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    glosses = read_glosses()
    lay_out(glosses, folder / COLLECTION, by_part_of_speech)
    (folder / CONFIG.name).write_text(CONFIG.read_text())
    _type(screen, "revector plan", folder)
    _type(screen, "revector apply", folder)
    _type(screen, f"revector search {COLLECTION} {shlex.quote(QUESTIONS[1].text)} -k 2", folder)
    screen.print("[dim]# one definition in a hundred is edited[/dim]\n")
    lay_out(revised(glosses), folder / COLLECTION, by_part_of_speech)
    _type(screen, "revector apply", folder)
    return FONTS.sub("", screen.export_svg(title="revector", unique_id="revector"))


def _type(screen: Console, command: str, folder: Path) -> None:
    """Run a command as if it were typed there, and show what it writes to stdout."""
    screen.print(f"[green]$[/green] [bold]{command}[/bold]", highlight=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REVECTOR_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *shlex.split(command)[1:]],
        cwd=folder,
        env=environment | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 2):  # of `plan`: there is something to do
        sys.exit(f"expected {command} to end well, found exit code {done.returncode}")
    screen.print(Text.from_ansi(done.stdout))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.write_text(make(Path(folder)), encoding="utf-8")
