"""From `revector.toml` to a Spec: read once, checked whole, every problem named by its key."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import ValidationError

from pipelines.errors import SpecError
from pipelines.redaction import redact
from pipelines.spec.declared import COLLECTION_NAME, CollectionSpec, ModelSpec, Spec
from pipelines.spec.keys import nearest, shorten
from pipelines.spec.places import check_cluster, check_store, check_uri
from pipelines.spec.reports import ReportsSpec

DEFAULT_CONFIG = "revector.toml"


def load_spec(path: str | os.PathLike[str] | None = None, store: str | None = None, environ: Mapping[str, str] = os.environ) -> Spec:
    """Read and check a spec, of TOML or (`*.json`) JSON. An argument goes before the environment, the environment before the file.

    Relative paths in it become absolute, seen from the file's folder. Raises SpecError with one line that names the key.
    """
    file = spec_file(path, environ)
    try:
        text = file.read_text(encoding="utf-8")
        raw = orjson.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise SpecError(f"expected a spec at {file}, found none: `revector init` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{file}: expected TOML, found {error}") from None
    except orjson.JSONDecodeError as error:
        raise SpecError(f"{file}: expected JSON, found {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"expected a readable spec at {str(file)!r}, found {error}") from None
    base = file.resolve().parent
    if chosen := chosen_store(store, environ):
        raw["store"] = chosen
    return parse_spec(raw, base, str(file))


def spec_file(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where `load_spec` looks."""
    return Path(path or environ.get("REVECTOR_CONFIG") or DEFAULT_CONFIG)


def chosen_store(store: str | None = None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The store that goes before a spec's, absolute: of an argument, or of the environment. None: there is no other than the spec's.

    Raises SpecError for what is no place of a store.
    """
    chosen = store or environ.get("REVECTOR_STORE")
    if chosen:
        check_store("store", chosen)
    return absolute(chosen, Path.cwd()) if chosen else None


def dump_spec(spec: Spec, name: str) -> bytes:
    """One collection of a spec as JSON, which `load_spec` reads from a `.json` file: what goes along to another machine."""
    one = spec.model_copy(update={"collections": {name: spec.collections[name]}})
    return orjson.dumps(one.model_dump(mode="json", exclude_defaults=True), option=orjson.OPT_INDENT_2)


def check_name(name: str) -> str:
    """`name` if a collection may be called so. Raises SpecError."""
    if not re.fullmatch(COLLECTION_NAME.strip("^$"), name):
        raise SpecError(f"expected the name of a collection, of letters, digits, '_' and '-', at most 63, found {name!r}")
    return name


def check_text(what: str, text: str) -> str:
    """`text` if it is one. Raises SpecError for bytes that are no UTF-8, which the command line gets as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SpecError(f"expected {what} in UTF-8, found {ascii(text)[:100]}") from None
    return text


def parse_spec(raw: dict[str, Any], base: Path, origin: str = DEFAULT_CONFIG) -> Spec:
    """Check a spec that is already a dict. Relative paths are seen from `base`. Raises SpecError."""
    try:
        spec = Spec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(redact(f"{origin}: {_first_problem(error)}")) from None
    check_store(f"{origin}: store", spec.store)
    collections = {name: _resolved(name, collection, base, origin) for name, collection in spec.collections.items()}
    return spec.model_copy(update={"store": absolute(spec.store, base), "collections": collections})


def absolute(uri: str, base: Path) -> str:
    """`uri` if it has a scheme or is absolute, else seen from `base`."""
    return uri.rstrip("/") if "://" in uri else os.path.normpath(base / Path(uri).expanduser())


def _resolved(name: str, collection: CollectionSpec, base: Path, origin: str) -> CollectionSpec:
    source = collection.source.model_copy(update={"uri": absolute(collection.source.uri, base)})
    place = f"{origin}: collections.{name}"
    check_uri(f"{place}.source.uri", source.uri)
    if collection.run.cluster:
        check_cluster(f"{place}.run.cluster", collection.run.cluster)
    model = _located(collection.model, base, f"{place}.model")
    candidates = tuple(_located(each, base, f"{place}.candidates.{number}") for number, each in enumerate(collection.candidates))
    queries = collection.gates.queries
    check_uri(f"{place}.gates.queries", queries or "")
    gates = collection.gates.model_copy(update={"queries": absolute(queries, base)}) if queries else collection.gates
    reports = _reports(collection.reports, base, f"{place}.reports")
    return collection.model_copy(update={"source": source, "model": model, "candidates": candidates, "gates": gates, "reports": reports})


def _reports(reports: ReportsSpec, base: Path, place: str) -> ReportsSpec:
    located: dict[str, Any] = {}
    for kind in reports.kinds:
        options = reports.options(kind)
        files = {key: getattr(options, key) for key in options.files if getattr(options, key)}
        for key, uri in files.items():
            check_uri(f"{place}.{kind}.{key}", uri)
        located[kind] = options.model_copy(update={key: absolute(uri, base) for key, uri in files.items()})
    return reports.model_copy(update=located)


def _located(model: ModelSpec, base: Path, place: str) -> ModelSpec:
    if model.name == "hash" and model.dimensions is None:
        raise SpecError(f"{place}.dimensions: expected a number with name = 'hash', found none")
    check_uri(f"{place}.name", model.name)
    if model.name.startswith((".", "~", "/")) or (base / model.name).is_dir():
        return model.model_copy(update={"name": absolute(model.name, base)})
    return model


def _first_problem(error: ValidationError) -> str:
    unknown_first = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problems = [_describe(problem) for problem in unknown_first]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more


def _describe(problem: Any) -> str:
    *parents, key = problem["loc"] or ("",)
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    found = shorten(problem["input"])
    match problem["type"]:
        case "extra_forbidden":
            known = _known_keys(parents)
            return f"{where}: expected one of {', '.join(known)}, found an unknown key{nearest(str(key), known)}"
        case "missing":
            return f"{where}: expected a value, found none"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case _ if "[key]" in problem["loc"]:
            return f"{where}: expected a name of letters, digits, '_' and '-', at most 63, found {found}"
        case _:
            expected = problem["msg"].removeprefix("Input should be ").partition(", unable")[0]
            expected = expected.replace("a valid", "a").replace("a tuple", "a list")
            return f"{where}: expected {expected}, found {found}"


def _known_keys(parents: list[str | int]) -> list[str]:
    """The keys of the table at `parents`."""
    table: Any = CollectionSpec if parents else Spec
    for name in parents[2:]:
        if isinstance(name, str):  # else a place in a list
            annotation = table.model_fields[name].annotation
            table = next(one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields"))
    return list(table.model_fields)
