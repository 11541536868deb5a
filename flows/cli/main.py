"""The command line. One object on stdout with --json, progress and logs on stderr; heavy libraries only when a command needs them."""

import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from flows.cli import care, collections, insights, models, remote, schedules
from flows.cli.options import Json
from flows.show.lines import JSON_LINES, STOP_AT_EOF
from flows.show.output import put
from pipelines.errors import RevectorError
from pipelines.logs import shown
from pipelines.redaction import printable, redact

VERBOSE = ("-v", "--verbose")

app = typer.Typer(
    name="revector",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Keep the embeddings of large corpora current.

    Declare a collection in revector.toml; [bold]plan[/bold] shows what an update would do and
    cost, [bold]apply[/bold] does it and publishes the result atomically. Only what changed
    is embedded.

    Exit codes: 0 done, 1 error, 2 changes pending (plan), 3 a gate failed (built,
    not published), 4 published with dead letters, 5 another run has the
    collection, 64 bad spec or usage, 130 stopped.""",
    epilog="First steps: [bold]revector demo[/bold], or [bold]revector init[/bold], edit revector.toml, [bold]revector plan[/bold], "
    "[bold]revector apply[/bold].",
)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, a line an event.")] = False,
) -> None:
    # main() puts both first, wherever they stand on the command line; `debug` it reads itself, so that it also covers errors of usage.
    json = os.environ.get(JSON_LINES) == "json"
    if json or verbose:
        context.with_resource(shown(json=json))


@app.command(epilog="Example: revector demo --keep ./demo")
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="A new folder for the demo's files, to look at afterwards.")] = None,
    json: Json = False,
) -> None:
    """The whole story on real text: 8,000 WordNet glosses, in about a minute."""
    from rich.console import Console

    from flows.demo import tell

    story = tell(keep, Console(stderr=json))
    put(json, story, lambda: None)


for group in (collections, insights, models, care, remote, schedules):
    app.add_typer(group.commands)


def main() -> NoReturn:
    """The entry point: every way out has an exit code, every error is one line."""
    arguments, debug = _own_first(sys.argv[1:])
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    signal.signal(signal.SIGTERM, _terminate)
    if os.environ.get(STOP_AT_EOF) == "1":
        threading.Thread(target=_stop_at_eof, name="parent", daemon=True).start()
    sys.exit(_run(arguments, debug))


def _own_first(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments with the program's own options before the command, and whether --debug was among them. Behind `--` there are none."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    given = sorted((option for option in options if option != "--debug"), key=lambda option: option not in VERBOSE)
    return given + rest, "--debug" in options


def _terminate(*_: object) -> NoReturn:
    """A scheduler's stop unwinds like Ctrl-C: actors are ended, the record is written."""
    raise KeyboardInterrupt


def _stop_at_eof() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = int(app(arguments or ["--help"], standalone_mode=False) or 0)
        return _fail("stopped; the same command goes on from here", code, debug) if code == 130 else code  # Typer's, of KeyboardInterrupt
    except typer.Exit as end:
        return int(end.exit_code)
    except TyperException as error:
        return _fail(f"{error.format_message()} (`revector --help` lists commands, `revector COMMAND --help` options)", 64, debug)
    except RevectorError as error:
        return _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped; the same command goes on from here", 130, debug)
    except Exception as error:  # noqa: BLE001  the outermost edge
        from storage.store.s3 import store_failure

        # The message of a foreign error may quote a document; that of the system names a file or an address.
        kind = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
        return _fail(str(store_failure(error) or f"{kind} (--debug shows where)"), 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        sys.stderr.write(printable(redact(traceback.format_exc())))
    sys.stderr.write(f"revector: {printable(redact(' '.join(message.split())))}\n")
    return code
