"""What hostile input costs: each at full size beside one good document, `revector apply` on it, its time and its peak memory.

python -m benchmarks.hostile                     # all of them, one after another
python -m benchmarks.hostile --only "a line of 1 GB" --out table.md

The stand-in model; limits as they are by default, but for the gate: a file of dead letters alone would fail it.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.harness import REVECTOR, SCRATCH, machine, measure, publish, table, versions
from tests.support.hostile import compressed, empty_rows, nested_bomb, parquet_bomb, plain, words

MB = 1 << 20
BLANK = (b" " * 1023 + b"\n") * 1024
GOOD = b'{"id": "good", "text": "a plain text", "tags": ["a"]}\n'
SPEC = """
[collections.hostile]
source = { uri = "data", id = "id", text = "text"%s }
model = { name = "hash", dimensions = 16 }
gates = { max_failed = 1 }
"""
FILES = 1_000_000


def _long_document(folder: Path) -> None:
    (folder / "long.txt").write_bytes(b"".join(words(50 * MB)))


def _broken_quote(folder: Path) -> None:
    plain(folder / "a.csv", b'id,text\na,one\nb,"two\n', b"1,some text\n" * (MB // 12), 300)


def _many_files(folder: Path) -> None:
    for number in range(FILES):
        inner = folder / f"{number // 1000:04}"
        if number % 1000 == 0:
            inner.mkdir()
        (inner / f"{number:07}.txt").write_text(f"text of file {number}")


INPUTS: Mapping[str, Callable[[Path], None]] = {
    "nothing but the good document": lambda folder: None,
    "200 GB in Parquet, one value of 10 MB": lambda folder: parquet_bomb(folder / "a.parquet", 20_000, 10_000_000),
    "40 GB in Parquet, lists of one value": lambda folder: nested_bomb(folder / "a.parquet", 4_000, 10, 1_000_000),
    "10 GB in gzip": lambda folder: compressed(folder / "a.jsonl.gz", b"", BLANK, 10_000),
    "100 GB in zstd": lambda folder: compressed(folder / "a.jsonl.zst", b"", BLANK, 100_000),
    "a line of 1 GB": lambda folder: plain(folder / "a.jsonl", b'{"id": "x", "text": "', b"x" * MB, 1024, b'"}\n'),
    "10,000,000 rows without text": lambda folder: empty_rows(folder / "a.parquet", 10_000_000),
    "a document of 50 MB": _long_document,
    "300 MB of CSV behind an open quote": _broken_quote,
    "HTML, 100,000 tags deep": lambda folder: plain(folder / "a.html", b"", b"<div>", 100_000, b"x"),
    "HTML, 1,000,000 attributes": lambda folder: plain(
        folder / "a.html", b"<p ", b"".join(b"a%d " % n for n in range(1_000_000)), 1, b">x"
    ),
    "Markdown, 1,000,000 '['": lambda folder: plain(folder / "a.md", b"", b"[" * MB, 1),
    "1,000,000 files": _many_files,
}


def run(name: str) -> list[str]:
    """A row of the table: input, stored bytes, what became of it, seconds, peak memory."""
    folder = SCRATCH / "hostile"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    INPUTS[name](folder / "data")
    stored = sum(file.stat().st_size for file in (folder / "data").rglob("*") if file.is_file())
    (folder / "data/z-good.jsonl").write_bytes(GOOD)
    (folder / "revector.toml").write_text(SPEC % (', metadata = ["tags"]' if "lists" in name else ""))
    measured = measure([*REVECTOR, "apply", "--json"], folder, exits=(0, 4))
    done = measured.output
    became = f"{done['status']}: {done['documents']['added']:,} documents, {done['dead_letters']:,} dead letters"
    return [name, f"{stored / 1e6:,.2f}", became, f"{measured.seconds:,.0f}", f"{measured.peak / 1e6:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(INPUTS), default=list(INPUTS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.only:
        rows.append(run(name))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    parts = [
        "## Hostile input",
        f"{machine()}; {versions(sys.executable, ['pyarrow', 'pylance'])}.\n"
        "Stand-in model, default limits; wall time of the whole command, and its largest process; one run each.",
        table(["input", "stored, MB", "what became of it", "s", "peak, MB"], rows),
    ]
    publish("\n\n".join(parts), options.out)


if __name__ == "__main__":
    main()
