"""`revector.toml`: what a person declares. Read once, checked whole, immutable afterwards."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from cronsim import CronSim, CronSimError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.errors import SpecError
from pipelines.places import check_cluster, check_store, check_uri
from pipelines.redaction import redact

DEFAULT_CONFIG = "revector.toml"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

Format = Literal["parquet", "jsonl", "csv", "lance", "text", "markdown", "html"]
Precision = Literal["auto", "float32", "bfloat16"]
TABULAR: tuple[Format, ...] = ("parquet", "jsonl", "csv", "lance")
COLLECTION_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Fields = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)


class SourceSpec(_Table):
    """Where the documents are."""

    uri: str
    """A file, a folder or a glob; a local path or `s3://`."""
    id: str | None = None
    """The column that names a document. Files of text need none: their path is their id."""
    text: Fields = ()
    """The columns that are embedded, joined by a blank line, in order."""
    metadata: Fields = ()
    """The columns that are kept beside the text."""

    @field_validator("metadata")
    @classmethod
    def _usable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or not all(names) or "\0" in "".join(names):
            raise ValueError(f"expected the names of columns, each once and without NUL, found {_shorten(list(names))}")
        return names

    format: Format | None = None
    """None: by suffix."""
    duplicates: Literal["first", "last", "error"] = "first"
    """Which document to keep when an id occurs twice, in file order."""


class ChunkingSpec(_Table):
    """How documents are cut."""

    by: Literal["tokens", "stable", "document"] = "tokens"
    size: int = Field(default=256, ge=8, le=1_000_000)
    """The most tokens of a chunk as the model sees it, its special tokens included."""
    overlap: int = Field(default=0, ge=0)
    """Tokens that a chunk repeats of the one before it; `tokens` only."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> "ChunkingSpec":
        if self.overlap and self.by != "tokens":
            raise ValueError(f"expected overlap = 0 with by = '{self.by}', found {self.overlap}")
        if self.overlap * 2 > self.size:
            raise ValueError(f"expected overlap of at most half of size ({self.size // 2}), found {self.overlap}")
        return self


class ModelSpec(_Table):
    """Which model embeds them. A change of what decides a vector makes a new generation."""

    model_config = ConfigDict(str_min_length=0)

    name: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A folder, a model that an installed package carries, or one on the hub; `hash` is the stand-in for tests of scale."""
    revision: str | None = None
    """The hub's commit; None: the current one, which is recorded."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """What the weights must hash to; None: whatever they do, recorded."""
    prompt: str | None = None
    """Put before every document; None: the model's own."""
    query_prompt: str | None = None
    """Put before every query; None: the model's own."""
    dimensions: int | None = Field(default=None, ge=1)
    """Keep the first so many (Matryoshka); None: all."""
    dtype: Literal["float16", "float32"] = "float16"
    """As stored."""
    normalize: bool | None = None
    """Scale to unit length; None: as the model does."""
    max_tokens: int | None = Field(default=None, ge=8)
    """The longest input, special tokens included; None: the model's own."""
    trust_remote_code: bool = False


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LABEL_KEY = re.compile(rf"(?:[a-z0-9.-]{{1,253}}/)?{_WORD}")
LABEL_VALUE = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:,{_WORD})*\))")
"""What Ray takes of a label selector."""


class WorkersSpec(_Table):
    """Who does it. Nothing here changes a vector."""

    actors: int | None = Field(default=None, ge=1)
    """Model processes; None: as many as the cluster has GPUs for; without GPUs one a core, at most four."""
    gpus_per_actor: float = Field(default=0, ge=0)
    label: dict[str, str] = {}
    """Ray node labels that an actor's node must have."""
    precision: Precision = "auto"
    """Of the model's matrix products; "auto": bfloat16 where the processor has it and the vectors stay the same within tolerance."""
    batch_tokens: int | None = Field(default=None, ge=8)
    """Tokens of one forward pass, padding counted; None: what suits the device."""
    deadline: float = Field(default=600, gt=0)
    """Seconds after which a shard's actor counts as hung."""
    ready: float = Field(default=300, gt=0)
    """Seconds that an actor may take to find a place, and to load the model."""

    @field_validator("gpus_per_actor")
    @classmethod
    def _part_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"expected a part of one GPU or whole ones, found {gpus:g}")
        return gpus

    @field_validator("label")
    @classmethod
    def _selectable(cls, label: dict[str, str]) -> dict[str, str]:
        for key, value in label.items():
            if key == "ray.io/node-id":
                raise ValueError(f"expected a label that outlives a cluster, found {key!r}: start nodes with a label of their own")
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise ValueError(f'expected a Ray label and "a", "!a", "in(a,b)" or "!in(a,b)", found {key!r} = {value!r}')
        return label


class GatesSpec(_Table):
    """When a built version may be published."""

    max_failed: float = Field(default=0.01, ge=0, le=1)
    """The largest share of dead letters."""
    min_cosine: float = Field(default=0.99, ge=-1, le=1)
    """The least cosine of a stored vector to one that is made again of its text."""
    min_index_recall: float = Field(default=0.95, ge=0, le=1)
    """The least recall@10 of the index against exact search."""
    min_overlap: float = Field(default=0.9, ge=0, le=1)
    """The least share of 10 nearest neighbours in common with what readers have, where space and chunks are the same."""
    min_overlap_changed: float = Field(default=0.1, ge=0, le=1)
    """The same where the model or the chunking is another. Two good models share about .5, one with half its ids swapped .13."""
    queries: str | None = None
    """A file of JSON lines, each a "query" and its "relevant" document ids."""
    max_ndcg_drop: float = Field(default=0.02, ge=0, le=1)
    """How much lower nDCG@10 of these queries may be than what readers have."""
    min_ndcg: float | None = Field(default=None, ge=0, le=1)
    """The least nDCG@10 of these queries; None: any."""
    min_bridge_recall: float = Field(default=0.5, ge=0, le=1)
    """The least recall@10 of queries over a bridge, against the published model's own results."""


class RetentionSpec(_Table):
    """How long one can go back. What is rolled back to, and what a revert of the corpus takes its vectors from, is kept as long."""

    publications: int = Field(default=10, ge=1)
    """The newest so many stay."""
    days: float = Field(default=30, ge=0)
    """Those stay that readers had within so many days."""


class LimitsSpec(_Table):
    """What one input may cost. What exceeds it is a dead letter that names the limit; everything else is embedded.

    A corpus is read again when one of them changes.
    """

    document_bytes: int = Field(default=64 << 20, ge=1, le=1 << 30)
    """Of a document: its text, and the line, record or file that it is in."""
    metadata_bytes: int = Field(default=64 << 10, ge=1)
    """Of a document's metadata, which each of its chunks repeats."""
    id_bytes: int = Field(default=4096, ge=1)
    """Of a document's id, which each of its chunks repeats."""
    file_rows: int = Field(default=100_000_000, ge=1)
    """Of one file; of JSON lines that are read in pieces, of each piece."""
    file_bytes: int = Field(default=1 << 40, ge=1)
    """Of one file, decompressed and decoded."""
    expansion: int = Field(default=200, ge=1)
    """Bytes of a file, decompressed and decoded, for each one that is stored. Judged above 128 MiB only."""
    markup_seconds: int = Field(default=20, ge=1)
    """Processor time to read one document of Markdown or HTML: deep nesting takes parsers quadratic time."""


def _as_sync(value: Any) -> Any:
    return {"sync": value} if isinstance(value, str) else value


class ScheduleSpec(_Table):
    """When the collection's flows start by themselves: cron expressions, each None for never."""

    sync: str | None = None
    """Brings it up to date."""
    upgrade: str | None = None
    """Builds and judges its candidates."""
    maintain: str | None = None
    evaluate: str | None = None
    timezone: str = "UTC"
    """By its IANA name: "Europe/Berlin"."""
    paused: bool = False
    """Deployed, but nothing starts by itself until a person resumes it."""

    @field_validator("sync", "upgrade", "maintain", "evaluate")
    @classmethod
    def _cron(cls, expression: str | None) -> str | None:
        if expression is not None:
            try:
                CronSim(expression, datetime(2000, 1, 1))
            except CronSimError as error:
                raise ValueError(f'expected a cron expression like "0 3 * * *", found {expression!r}: {error}') from None
        return expression

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f'expected a time zone like "Europe/Berlin", found {name!r}') from None
        return name


class RunSpec(_Table):
    """Where runs that nobody types are started."""

    pool: str = "revector"
    """Prefect's work pool."""
    cluster: str | None = None
    """The address of a Ray cluster's Jobs API, `http://host:8265`; None: a process where the flow runs."""
    image: str | None = None
    """The container image of manifests."""


class PricesSpec(_Table):
    """What work costs, for plans and records."""

    gpu_hour: float = Field(default=0, ge=0)
    """Of one GPU for an hour."""
    cpu_hour: float = Field(default=0, ge=0)
    """Of one core for an hour."""
    currency: str = "USD"


class CollectionSpec(_Table):
    """A corpus, a chunking and a model under a name."""

    source: SourceSpec
    chunking: ChunkingSpec = ChunkingSpec()
    model: ModelSpec = ModelSpec()
    candidates: tuple[ModelSpec, ...] = ()
    """Further models, whose generations are built and kept current beside the main one, and published by `promote` only."""
    workers: WorkersSpec = WorkersSpec()
    gates: GatesSpec = GatesSpec()
    retention: RetentionSpec = RetentionSpec()
    limits: LimitsSpec = LimitsSpec()
    schedule: Annotated[ScheduleSpec, BeforeValidator(_as_sync)] = ScheduleSpec()
    run: RunSpec = RunSpec()
    prices: PricesSpec = PricesSpec()


class Spec(_Table):
    """The whole file."""

    store: str = "store"
    """A path or `s3://bucket/prefix`."""
    collections: dict[Annotated[str, Field(pattern=COLLECTION_NAME)], CollectionSpec] = Field(min_length=1)

    def collection(self, name: str | None) -> tuple[str, CollectionSpec]:
        """The collection called `name`, or the only one. Raises SpecError."""
        if name is None:
            if len(self.collections) == 1:
                return next(iter(self.collections.items()))
            raise SpecError(f"expected the name of one of {', '.join(self.collections)}, found none: name one")
        if name not in self.collections:
            raise SpecError(f"expected one of {', '.join(self.collections)}, found {name!r}{nearest(name, self.collections)}")
        return name, self.collections[name]


def load_spec(path: str | os.PathLike[str] | None = None, store: str | None = None, environ: Mapping[str, str] = os.environ) -> Spec:
    """Read and check a spec, of TOML or (`*.json`) JSON. An argument goes before the environment, the environment before the file.

    Relative paths in it become absolute, seen from the file's folder. Raises SpecError with one line that names the key.
    """
    file = Path(path or environ.get("REVECTOR_CONFIG") or DEFAULT_CONFIG)
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
    if chosen := store or environ.get("REVECTOR_STORE"):
        raw["store"] = absolute(chosen, Path.cwd())
    return parse_spec(raw, base, str(file))


def dump_spec(spec: Spec, name: str) -> bytes:
    """One collection of a spec as JSON, which `load_spec` reads from a `.json` file: what goes along to another machine."""
    one = spec.model_copy(update={"collections": {name: spec.collections[name]}})
    return orjson.dumps(one.model_dump(mode="json", exclude_defaults=True), option=orjson.OPT_INDENT_2)


def check_name(name: str) -> str:
    """`name` if a collection may be called so. Raises SpecError."""
    if not re.fullmatch(COLLECTION_NAME.strip("^$"), name):
        raise SpecError(f"expected the name of a collection, of letters, digits, '_' and '-', at most 63, found {name!r}")
    return name


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
    return collection.model_copy(update={"source": source, "model": model, "candidates": candidates, "gates": gates})


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
    found = _shorten(problem["input"])
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


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _known_keys(parents: list[str | int]) -> list[str]:
    """The keys of the table at `parents`."""
    if not parents:
        return list(Spec.model_fields)
    tables: dict[str, Any] = {name: field.annotation for name, field in CollectionSpec.model_fields.items()} | {"candidates": ModelSpec}
    table = CollectionSpec if len(parents) == 2 else tables[str(parents[2])]
    return list(table.model_fields)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
