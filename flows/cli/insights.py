"""The command line of reports: what the vectors of a version say, for people and for other tools."""

import ipaddress
import secrets
import sys
import tempfile
import webbrowser
from contextlib import suppress
from dataclasses import replace
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import REPORTS, Call, NameRequired, Place, Sending, with_options
from pipelines.errors import RevectorError, SpecError
from pipelines.spec.keys import nearest
from pipelines.spec.parsing import spec_file

if TYPE_CHECKING:
    from dashboard.settings import Settings
    from workers.reports.run_reports import Reported, Wish

commands = typer.Typer()
SHORTEST_TOKEN = 20
"""Characters, of a token that others may try to guess."""

MARTS = "marts"
Generation = Annotated[
    str, typer.Option("--generation", metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")
]
VersionOption = Annotated[
    int | None, typer.Option("--version", metavar="VERSION", help="A version that `revector history` lists, instead of the newest.")
]


@commands.command(
    epilog="Examples: revector report docs; revector report docs map clusters; revector report docs drift --since 16 --json",
    rich_help_panel=REPORTS,
)
@with_options
def report(
    name: NameRequired,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND...",
            help="map, clusters, outliers, duplicates, neighbours, balance, bias, tasks, drift, labels; else those of the spec, or map.",
        ),
    ] = None,
    generation: Generation = "published",
    version: VersionOption = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="VERSION", help="The version to compare with, instead of the one before.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Make a new map and new clusters; those that are still there keep place, number and name.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the map, and what is told here, as a page in the browser.")] = False,
    *,
    call: Call,
    sending: Sending,
) -> NoReturn:
    """What the vectors of a version say: what is in there, what is odd or there twice, what changed. Exits 3 beyond a limit.

    A report is kept beside the version that it is of, and is never made twice.
    After an update only what is new is looked at. [bold]reports = ["map", "drift"][/bold] in the
    spec makes them after each publication.
    """
    from flows import commands
    from flows.show import figures
    from flows.show.progress import progress
    from workers.reports.run_reports import Wish

    wish = Wish(generation, version, since, refit)
    if sending.away:
        if open_:
            raise SpecError("expected --open without --cluster and --detach, found both: `revector report --open` shows what is there")
        remote.send(remote.order("report", call.request(name), [*(kinds or []), *_options(wish)]), call, sending)
    with progress() as tell:
        made = commands.report(name, kinds or (), call.config, store=call.store, wish=wish, tell=tell, run_id=sending.run_id)
        page = _page(made, call, wish) if open_ else None
    call.answer(made, lambda: figures.reported(made))
    if page is not None:
        typer.echo(f"page: {page}", err=True)
        webbrowser.open(page.as_uri())
    raise typer.Exit(made.exit_code)


def _page(made: "Reported", call: Call, wish: "Wish") -> Path:
    """In a folder of its own that nobody else may look into: a page has ids and texts."""
    from flows import commands

    out = Path(tempfile.mkdtemp(prefix="revector-")) / f"{made.collection}.html"
    return Path(commands.export(made.collection, "page", out, call.config, store=call.store, wish=replace(wish, refit=False)).path)


@commands.command(
    epilog="Examples: revector export docs map.png --to png --by growth; revector export docs rows.parquet --to parquet; "
    "revector export --to marts --postgres env:MARTS",
    rich_help_panel=REPORTS,
)
@with_options
def export(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The collection; of marts all, if it is left out.")] = None,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="A file, or folder, that is not there yet; may be left out for marts.")
    ] = None,
    *,
    to: Annotated[str, typer.Option("--to", metavar="WHAT", help="page, png, projector, atlas, parquet or marts.")],
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="Colours of the png: clusters, growth, or a field of the metadata.")
    ] = "clusters",
    dark: Annotated[bool, typer.Option("--dark", help="The png on a dark ground.")] = False,
    generation: Generation = "published",
    version: VersionOption = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="VERSION", help="The version that growth is seen from, instead of the one before.")
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option("--postgres", metavar="ADDRESS", help="Of marts: a database to fill, or env:NAME: the variable has it."),
    ] = None,
    call: Call,
) -> None:
    """Write a version for people and other tools: its map as a page or a picture, its landmarks or its rows as files.

    page: one HTML file, with map, clusters and all reports of the version; it needs no network.
    png: the map as a picture. projector: landmarks for TensorBoard's Embedding Projector.
    atlas: rows with places and clusters for embedding-atlas (--x x --y y --text text).
    parquet: all rows with flat metadata, vectors as float32, and places where there is a map.
    marts: small tables of what runs left, for tools that ask in SQL: in the store, and in Postgres.
    """
    from flows import commands
    from flows.show import figures
    from flows.show.progress import progress
    from workers.reports.exporting import Look
    from workers.reports.run_reports import Wish

    if to == MARTS:
        handed = commands.export_marts(name, call.config, store=call.store, out=out, postgres=postgres)
        call.answer(handed, lambda: figures.handed(handed))
        return
    if name is None or out is None or postgres is not None:
        raise SpecError(f"expected NAME and OUT, and no --postgres, with --to {to}: `revector export docs OUT --to {to}`")
    wish = Wish(generation, version, since)
    with progress() as tell:
        made = commands.export(name, to, out, call.config, store=call.store, wish=wish, look=Look(by, dark), tell=tell)
    call.answer(made, lambda: figures.exported(made))


@commands.command(
    epilog="Examples: revector dashboard --open; revector dashboard --allow promote,rollback; revector dashboard --no-texts",
    rich_help_panel=REPORTS,
)
@with_options
def dashboard(
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on. Others than this machine's own demand a token, or a proxy.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8675,
    allow: Annotated[
        str, typer.Option("--allow", metavar="ACTS", help="What may be done there: promote, rollback, or both with a comma between.")
    ] = "",
    no_texts: Annotated[bool, typer.Option("--no-texts", help="Show figures and ids alone: no text and no metadata of documents.")] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Has the token that viewers show; else one is made anew.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="NAME", help="By which browsers may call the server, besides localhost.")
    ] = None,
    header: Annotated[
        str | None,
        typer.Option("--header", metavar="HEADER", help="In which a proxy names the viewer. No token is demanded then."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    *,
    place: Place,
) -> None:
    """Serve pages for people: what is stale and what it costs, runs, quality, maps, search; until Ctrl-C.

    It listens on this machine alone, and asks once for the token in the address
    that it prints. With [bold]--host[/bold] others can look: the token is of a file of yours,
    or a proxy that knows who asks names the viewer in a [bold]--header[/bold], and nobody
    else may reach the port. Nothing there writes to the store, unless [bold]--allow[/bold]
    says so. Plans need a spec.
    """
    from dashboard.serving import serve
    from storage.collection import RECORDS

    settings = _settings(place, allow, not no_texts, _token(token_file), tuple(names or ()), header)
    if not _is_own(host) and token_file is None and header is None:
        raise SpecError(f"expected --token-file or --header with --host {host}, found neither: others could look, too")

    def told(address: str) -> None:
        """With the token, if it was made for this time: one of a file is known to who has that, and stays out of logs."""
        entrance = address if token_file or header else f"{address}?token={settings.token}"
        known = "" if place.request().opened.objects.names(RECORDS) else " (it has no collection yet: is it the right one?)"
        typer.echo(f"{settings.store}{known} is shown at {entrance}", err=True)
        if open_:
            webbrowser.open(entrance)

    try:
        with suppress(KeyboardInterrupt):
            serve(settings, host, port, told)
    except OSError as error:
        if error.errno != EADDRINUSE:
            raise
        raise RevectorError(f"expected a free port, found {port} taken on {host}: --port 0 takes any that is free") from None


def _settings(place: Place, allow: str, texts: bool, token: str, names: tuple[str, ...], header: str | None) -> "Settings":
    from dashboard.settings import ACTS, Settings

    wanted = [act.strip() for act in allow.split(",") if act.strip()]
    if unknown := [act for act in wanted if act not in ACTS]:
        raise SpecError(f"expected --allow {', '.join(ACTS)}, found {unknown[0]!r}{nearest(unknown[0], ACTS)}")
    request = place.request()
    declared = request.collections
    models = {model for one in declared.values() for model in (one.model, *one.candidates)}
    revector = (sys.executable, "-m", "flows.cli") if declared else ()
    options = [*(["--config", str(spec_file(place.config).resolve())] if declared else []), "--store", request.opened.root]
    return Settings(
        store=request.opened.root,
        token=token,
        names=names,
        header=header,
        allow=frozenset(act for act in ACTS if act in wanted),
        texts=texts,
        revector=revector,
        place=tuple(options),
        encoder=(sys.executable, "-m", "workers.answering", *(model.model_dump_json() for model in models)),
    )


def _token(file: Path | None) -> str:
    """Raises SpecError for a file that has none, or one that is short enough to be guessed."""
    if file is None:
        return secrets.token_urlsafe(24)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SpecError(f"expected a token in {file}, found no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"expected a token in {file}, found {type(error).__name__}") from None
    if len(token) < SHORTEST_TOKEN:
        raise SpecError(
            f"expected a token of {SHORTEST_TOKEN} characters or more in {file}, found {len(token)}: `openssl rand -base64 32` makes one"
        )
    return token


def _is_own(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _options(wish: "Wish") -> list[str]:
    """Of a wish, as the command line takes it."""
    chosen = {"--generation": wish.generation, "--version": wish.version, "--since": wish.since}
    return [*(f"{option}={value}" for option, value in chosen.items() if value is not None), *(["--refit"] if wish.refit else [])]
