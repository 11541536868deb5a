"""What the benchmarks share: the machine and versions, processes and what they cost, interleaving, statistics, tables."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
SCRATCH = ROOT / "build/bench"
"""Corpora, stores and tables; git ignores it."""
PEERS = ROOT / "build/peers/bin/python"
"""With `requirements-peers.txt`."""
INFINITY = ROOT / "build/infinity/bin/python"
"""With `requirements-infinity.txt`."""
REVECTOR = [sys.executable, "-m", "flows.cli"]
SPEED_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}
SAMPLE_SECONDS = 0.1

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Measured:
    """A command that ran to its end."""

    seconds: float
    """Wall time of the whole command, start of the interpreter included."""
    peak: int
    """Bytes: the largest resident set that any one process of its tree ever had."""
    output: dict[str, Any]
    """The JSON object that was the last line of its standard output; empty if that was none."""


def measure(command: Sequence[str | Path], folder: Path, exits: Sequence[int] = (0,), **environment: str) -> Measured:
    """Run a command in `folder`. Raises SystemExit, with the end of its standard error, unless its exit code is among `exits`."""
    log = SCRATCH / "stderr.log"
    out = SCRATCH / "stdout.log"
    with log.open("wb") as errors, out.open("wb") as output:
        began, peaks = time.perf_counter(), dict[int, int]()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors, env=_environment(environment))
        while process.poll() is None:
            peaks |= {pid: max(peaks.get(pid, 0), peak_bytes(pid)) for pid in descendants(process.pid)}
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - began
    if process.returncode not in exits:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{log.read_text(errors='replace')[-3000:]}")
    return Measured(seconds, max(peaks.values(), default=0), _last_object(out.read_text(errors="replace")))


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1", **more}


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


def descendants(root: int) -> set[int]:
    """`root` and all processes that it started, directly or not, that are alive."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if stat := _read(folder / "stat"):
            children.setdefault(int(stat.rpartition(") ")[2].split()[1]), []).append(int(folder.name))
    found, todo = set[int](), [root]
    while todo:
        found.add(todo[-1])
        todo += children.get(todo.pop(), [])
    return found


def peak_bytes(pid: int) -> int:
    """The largest resident set so far, as the kernel keeps it: a sample now and then misses nothing but a process's last moment."""
    found = re.search(r"VmHWM:\s+(\d+)", _read(Path(f"/proc/{pid}/status")))
    return 1024 * int(found[1]) if found else 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return ""


class Worker:
    """A process that is asked in JSON lines and does nothing in between."""

    def __init__(self, command: Sequence[str | Path], **environment: str) -> None:
        """Waits for its first line. Raises SystemExit if it ends without one."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=_environment(environment)
        )
        self.ready = self._reply()

    def ask(self, **task: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{self._process.args!r}: ended\n{self._errors.read()[-3000:].decode(errors='replace')}")
        return dict(json.loads(line))


def pin(cores: int) -> None:
    """Bind this process, and those that it starts, to the first so many cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def interleaved(items: Sequence[Item], rounds: int) -> Iterator[Item]:
    """All items in each round; each round begins with another one, so that none always follows the same."""
    for number in range(rounds):
        start = number % len(items)
        yield from (*items[start:], *items[:start])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (least-most)`."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def ratios(base: Sequence[float], values: Sequence[float]) -> str:
    """How many times faster than `base`, round by round: what disturbs a round disturbs both."""
    return spread([one / other for one, other in zip(base, values, strict=True)])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def machine() -> str:
    """One line: processor, what it can do, cores, memory."""
    cpu = Path("/proc/cpuinfo").read_text()
    model, flags = (re.search(rf"^{name}\s*: (.*)$", cpu, re.MULTILINE) for name in ("model name", "flags"))
    has = SPEED_FLAGS & set(flags[1].split()) if flags else set()
    amx = "" if "amx_bf16" in has else "; no AMX"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model[1] if model else 'unknown processor'} ({', '.join(sorted(has))}{amx}), {cores} cores, {memory:.0f} GiB"


def versions(python: str | Path, packages: Sequence[str]) -> str:
    """Of packages as another interpreter has them."""
    code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout.strip()


def publish(section: str, out: Path | None) -> None:
    """Print a section of the report, and keep it in a file."""
    print(section)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(section + "\n\n", encoding="utf-8")
