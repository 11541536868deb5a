"""Writes docs/reference.md from what the program itself says: the spec's models and their docstrings, the commands, the errors.

    python docs/make_reference.py        # or: make reference

A test fails when the committed file is not what this makes.
"""

import ast
import inspect
import re
import textwrap
import types
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import orjson
import typer
import typer.main
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.cli.main import app
from pipelines import errors
from pipelines.spec.declared import CollectionSpec, Spec
from pipelines.spec.keys import SpecTable
from pipelines.spec.reports import OPTIONS

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference

<!-- Written by `make reference`. To change it, change the docstrings in pipelines/spec/, the help of the commands in flows/cli/,
     or docs/make_reference.py. -->

Every key of the spec, every command, every environment variable and every exit code.

- [The spec: revector.toml](#the-spec-revectortoml)
- [Commands](#commands)
- [Environment variables](#environment-variables)
- [Exit codes and errors](#exit-codes-and-errors)
"""
SPEC = """## The spec: revector.toml

The file is TOML. Relative paths in it are seen from its folder. A key that is not known is refused, with the nearest one that is.
`[collections.NAME.source]` and `source = { ... }` under `[collections.NAME]` say the same. `revector init` writes a commented example.
"""
COMMANDS = """## Commands

`revector --help` lists the commands, `revector COMMAND --help` the options of one. For any command: `--verbose` (`-v`) logs what
happens, one line an event, to stderr; `--debug` shows the traceback of an error.

NAME is a collection's. In brackets it may be left out if the spec has only one.
"""
SHARED = 3
"""An option of so many commands is explained once."""
TYPED = re.compile(r"^(revector|prefect|--)|=")
VARIABLES = {
    "REVECTOR_CONFIG": "The spec's file, where `--config` is not given. Without both: `revector.toml` in the working directory.",
    "REVECTOR_STORE": "The store, instead of the spec's. `--store` goes before it.",
    "REVECTOR_METRICS": "Where runs leave metrics for Prometheus: a folder (node exporter's textfile collector), or `http://` and the "
    "address of a Pushgateway.",
    "REVECTOR_PROGRESS": "`json`: progress and log as JSON lines on stderr, for a program that reads them.",
    "REVECTOR_RESULT": "`line`: with `--json`, the result is one line among others: an object of `kind` result, and `result`.",
    "REVECTOR_COMMIT": "For the record of a run: the git commit that an image was built from. Without it, that of the working copy.",
    "REVECTOR_IMAGE": "For the record of a run: the container image.",
    "REVECTOR_WHERE": "Set by revector itself on a job that it sends to a cluster: which job it is.",
    "REVECTOR_STOP_AT_EOF": "Set by revector itself on a command that a flow starts: the command ends when the flow is gone.",
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE ...": "Credentials for `s3://`, found as every AWS program "
    "does: also from a shared file, a web identity or the instance.",
    "AWS_ENDPOINT_URL": "The address of an object store that is not of AWS. `AWS_ENDPOINT_URL_S3` goes before it.",
    "AWS_REGION, AWS_DEFAULT_REGION": "The region of the bucket.",
    "RAY_ADDRESS": "A Ray cluster that the work goes to. Without it one is started on this machine, and ended afterwards.",
    "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH": "The token of a cluster for `--cluster` and `run.cluster`: itself, or a file with it. Without "
    "both: `~/.ray/auth_token`.",
    "PREFECT_API_URL": "The Prefect server, for `deploy`, `serve`, `announce` and `reconcile`.",
    "HF_TOKEN, HF_HOME, HF_HUB_OFFLINE": "Of the model hub's own client: access, the folder of downloads, and `1` for never asking it.",
    "TMPDIR": "Where large differences of tables are kept for a while. It needs room on a disk.",
}
EXIT_CODES = {
    0: "done",
    1: "an error; of `doctor`: something is wrong",
    2: "`plan` only: there is something to do",
    3: "a gate failed: what was built is not published (`apply`), or does not pass (`evaluate`, `bridge`)",
    4: "published, with dead letters",
    5: "another run has the collection",
    64: "the spec or the command is wrong",
    130: "stopped by Ctrl-C, a signal or `cancel`",
}


def page() -> str:
    """The whole of reference.md."""
    return "\n".join([HEAD, SPEC, *_tables(), COMMANDS, *_commands(), *_environment(), *_exits(), ""])


def meanings(table: type[SpecTable]) -> dict[str, str]:
    """The docstring under each field of a table of the spec. (pydantic can read them, too, but at each start of the program.)"""
    body = ast.parse(textwrap.dedent(inspect.getsource(table))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def tables() -> Iterator[tuple[str, type[SpecTable]]]:
    """The tables of the spec with their headings."""
    yield "The file", Spec
    yield "collections.NAME", CollectionSpec
    for name, field in CollectionSpec.model_fields.items():
        if isinstance(field.annotation, type):
            yield f"collections.NAME.{name}", field.annotation
    for kind, options in OPTIONS.items():
        if options.model_fields:
            yield f"collections.NAME.reports.{kind}", options


def _tables() -> Iterator[str]:
    for heading, table in tables():
        yield f"### {heading}\n"
        yield f"{inspect.getdoc(table)}\n"
        told = meanings(table)
        rows = [(f"`{name}`", _kind(field), _default(field), told[name]) for name, field in table.model_fields.items()]
        yield from _table(("key", "type", "default", "meaning"), rows)


def _kind(field: FieldInfo) -> str:
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    most = next((bound.le for bound in field.metadata if hasattr(bound, "le")), None)
    above = next((bound.gt for bound in field.metadata if hasattr(bound, "gt")), None)
    kind = _type(field.annotation)
    if above is not None:
        return f"{kind} above {above}"
    if least is None:
        return kind
    return f"{kind}, {least} or more" if most is None else f"{kind}, {least} to {most:,}"


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{word}"`' for word in inside)
    if origin in (Union, types.UnionType):
        return _type(next(one for one in inside if one is not types.NoneType))
    if origin is tuple:
        return "a text, or a list of texts" if inside[0] is str else "a list of tables"
    if origin is dict:
        texts = "a text, a list of texts, or a table of texts" if get_origin(inside[1]) is Literal else "a table of texts"
        return texts if inside[1] is str or get_origin(inside[1]) is Literal else "tables"
    if issubclass(annotation, SpecTable):
        return "a table"
    return {str: "text", bool: "`true`, `false`", int: "whole number", float: "number"}[annotation]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**required**"
    if value is None or value == () or isinstance(value, SpecTable):
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`"
    return f"`{orjson.dumps(value).decode()}`"


def _commands() -> Iterator[str]:
    commands = list(_leaves(typer.main.get_command(app), ["revector"], "Every day"))
    used = Counter(option for _, _, command in commands for option in _options(command))
    shared = {option for option, times in used.items() if times >= SHARED}
    yield "Options of many commands:\n"
    yield from (f"- `{name}`: {meaning}" for name, meaning in sorted(shared))
    yield ""
    for panel, group in groupby(commands, key=itemgetter(0)):
        yield f"### {panel}\n"
        for _, path, command in group:
            yield from _command(path, command, shared)


def _leaves(command: Any, path: list[str], panel: str) -> Iterator[tuple[str, list[str], Any]]:
    """Each command, the words that call it, and the panel of the help that it is in."""
    if isinstance(command.rich_help_panel, str):
        panel = command.rich_help_panel
    if not hasattr(command, "commands"):
        yield panel, path, command
        return
    for name, below in command.commands.items():
        yield from _leaves(below, [*path, name], panel)


def _command(path: list[str], command: Any, shared: set[tuple[str, str]]) -> Iterator[str]:
    arguments, options = _arguments(command), _options(command)
    yield f"#### {' '.join([*path, *(name for name, _ in arguments)])}\n"
    yield f"{_plain(inspect.cleandoc(command.help))}\n"
    own = [*(argument for argument in arguments if not argument[0].endswith(("NAME", "NAME]"))), *(o for o in options if o not in shared)]
    yield from (f"- `{name}`: {meaning}" for name, meaning in own)
    if also := [f"`{option[0]}`" for option in options if option in shared]:
        yield f"{'- also ' if own else '- '}{', '.join(also)}"
    yield "\n```sh"
    yield from _examples(command.epilog)
    yield "```\n"


def _examples(epilog: str) -> list[str]:
    kind, _, text = epilog.partition(": ")
    lines = text.split("; ") if kind == "Examples" else [text]
    return [re.sub(r" +\((.*)\)$", r"   # \1", line) for line in lines]


def _arguments(command: Any) -> list[tuple[str, str]]:
    found = []
    for parameter in command.params:
        if not parameter.opts[0].startswith("-"):
            name = (parameter.metavar or parameter.name.upper()).strip("[]")
            found.append((name if parameter.required else f"[{name}]", _plain(parameter.help)))
    return found


def _options(command: Any) -> list[tuple[str, str]]:
    """As they are written, and what they mean."""
    context = typer.Context(command)
    shown = [parameter for parameter in command.params if parameter.opts[0].startswith("-") and not parameter.hidden]
    return [(name, _plain(meaning)) for name, meaning in (parameter.get_help_record(context) for parameter in shown)]


def _plain(text: str) -> str:
    """Markdown of what rich marks up: bold is what is to be typed, or a warning."""
    return re.sub(r"\[bold\](.*?)\[/bold\]", lambda match: f"`{match[1]}`" if TYPED.search(match[1]) else f"**{match[1]}**", text)


def _environment() -> Iterator[str]:
    yield "## Environment variables\n"
    rows = [(", ".join(_variables(names)), meaning) for names, meaning in VARIABLES.items()]
    yield from _table(("variable", "meaning"), rows)


def _variables(names: str) -> list[str]:
    return [f"`{name}`" for name in names.removesuffix(" ...").split(", ")] + (["…"] if names.endswith("...") else [])


def _exits() -> Iterator[str]:
    yield "## Exit codes and errors\n"
    yield from _table(("exit code", "means"), [(str(code), meaning) for code, meaning in EXIT_CODES.items()])
    yield "An error is one line on stderr: what was expected, what was found, what to do. In Python it is a class of `pipelines.errors`:\n"
    yield f"```text\n{(inspect.getdoc(errors) or '').partition(chr(10) * 2)[2]}\n```"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in row)} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
