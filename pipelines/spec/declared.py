"""`revector.toml`: what a person declares. Read once, checked whole, immutable afterwards."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_serializer, field_validator, model_validator

from pipelines.errors import SpecError
from pipelines.spec.keys import SpecTable, nearest, shorten
from pipelines.spec.reports import ReportsSpec, as_reports
from pipelines.spec.running import MartsSpec, PricesSpec, RunSpec, ScheduleSpec, WorkersSpec, as_sync

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

Format = Literal["parquet", "jsonl", "csv", "lance", "text", "markdown", "html"]
TABULAR: tuple[Format, ...] = ("parquet", "jsonl", "csv", "lance")
MetadataType = Literal["auto", "string", "int", "float", "bool", "timestamp", "date"]
COLLECTION_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Fields = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


def _as_types(value: Any) -> Any:
    """A table of types, also of a list of names."""
    names = list(value) if isinstance(value, dict) else _as_list(value)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of columns, or a table of their types, found {shorten(value)}")
    if len(set(names)) < len(names) or not all(names) or "\0" in "".join(names):
        raise ValueError(f"expected the names of columns, each once and without NUL, found {shorten(list(names))}")
    return value if isinstance(value, dict) else dict.fromkeys(names, "auto")


class SourceSpec(SpecTable):
    """Where the documents are."""

    uri: str
    """A file, a folder, a glob or a Lance table; a path, or `s3://bucket/prefix`. A folder is read with all that is below it."""
    id: str | None = None
    """The column that names a document. Left out for text, Markdown and HTML: there the file's path is the id."""
    text: Fields = ()
    """The columns that are embedded, joined by a blank line, in this order. Left out for text, Markdown and HTML."""
    metadata: Annotated[dict[str, MetadataType], BeforeValidator(_as_types)] = Field(default_factory=dict)
    """The columns that are kept beside the text, for filters and results: a list, or a table with their types, `{ price = "float" }`, of
    `string`, `int`, `float`, `bool`, `timestamp` (in UTC) and `date`. `auto`, as in a list: as the first file has it; of CSV a string.
    Files of text have `path`, `name`, `suffix` and `title`.
    """

    @field_serializer("metadata")
    def _as_declared(self, types: dict[str, MetadataType]) -> Any:
        """A list if it can be one: it identifies what was read before there were types."""
        return types if set(types.values()) - {"auto"} else list(types)

    format: Format | None = None
    """How files are read; left out: by the suffix of each, with `.gz` or `.zst` after it."""
    delimiter: str = ","
    """What stands between the fields of a CSV file: one character, `"\\t"` for a tab."""
    encoding: str = "utf-8"
    """Of CSV files: `latin-1`, `cp1252`, `utf-16` or another that Python knows."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError(f"expected one ASCII character that is no quote and ends no line, found {delimiter!r}")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _of_text(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except LookupError:
            raise ValueError(f"expected an encoding of text like 'latin-1', found {shorten(encoding)}") from None
        return encoding

    duplicates: Literal["first", "last", "error"] = "first"
    """Which document is kept, in file order, when an id occurs twice; the others are dead letters. `error`: the run ends."""


class ChunkingSpec(SpecTable):
    """How documents are cut into chunks."""

    by: Literal["tokens", "stable", "document"] = "tokens"
    """`tokens`: windows of equal size. `stable`: borders set by the content, so that an edit moves few. `document`: one chunk each."""
    size: int = Field(default=256, ge=8, le=1_000_000)
    """The most tokens of a chunk as the model sees it, its special tokens included; not used by `document`."""
    overlap: int = Field(default=0, ge=0)
    """Tokens that a chunk repeats of the one before it; with `tokens` only."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> "ChunkingSpec":
        if self.overlap and self.by != "tokens":
            raise ValueError(f"expected overlap = 0 with by = '{self.by}', found {self.overlap}")
        if self.overlap * 2 > self.size:
            raise ValueError(f"expected overlap of at most half of size ({self.size // 2}), found {self.overlap}")
        return self


class ModelSpec(SpecTable):
    """Which model embeds the chunks. A change of what decides a vector makes a new generation."""

    model_config = ConfigDict(str_min_length=0)

    name: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A folder with the model, or its name on the model hub; `hash` is a stand-in for tests of scale, whose vectors mean nothing."""
    revision: str | None = None
    """The commit on the hub; left out: the newest one, which is recorded."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The hash that the weights must have, or the model is refused; left out: any, which is recorded."""
    prompt: str | None = None
    """Text that is put before every document; left out: the model's own."""
    query_prompt: str | None = None
    """Text that is put before every query; left out: the model's own."""
    dimensions: int | None = Field(default=None, ge=1)
    """How many numbers of a vector are kept, the first ones (Matryoshka); left out: all."""
    dtype: Literal["float16", "float32"] = "float16"
    """The number type of stored vectors: 2 or 4 bytes a number."""
    normalize: bool | None = None
    """Whether vectors are scaled to length 1; left out: as the model does."""
    max_tokens: int | None = Field(default=None, ge=8)
    """The longest input in tokens, special ones included; what is longer is cut. Left out: the model's own."""
    trust_remote_code: bool = False
    """Whether Python code in the model's folder may run. A model that brings code is refused otherwise."""


class GatesSpec(SpecTable):
    """When a built version may be published."""

    max_failed: float = Field(default=0.01, ge=0, le=1)
    """The largest share of documents, of all, that cannot be read or embedded; a lost file counts as the documents in it."""
    max_removed: float = Field(default=0.5, ge=0, le=1)
    """The largest share of the documents that readers have that an update may take away; 1: all, also where nothing is found any more."""
    min_cosine: float = Field(default=0.99, ge=-1, le=1)
    """The least cosine of a stored vector to one that is made again of its text; at most 200 are, and 32 older ones of an update."""
    min_index_recall: float = Field(default=0.95, ge=0, le=1)
    """The least share of the 10 nearest by exact search that a search by the index finds."""
    min_overlap: float = Field(default=0.9, ge=0, le=1)
    """The least share of 10 nearest neighbours in common with what readers have, where space and chunks are the same."""
    min_overlap_changed: float = Field(default=0.1, ge=0, le=1)
    """The same where the model or the chunking is another. Two good models share about .5, one with half its ids swapped .13."""
    queries: str | None = None
    """A file of JSON lines: `{"query": "...", "relevant": ["document id", ...]}`."""
    max_ndcg_drop: float = Field(default=0.02, ge=0, le=1)
    """How much lower nDCG@10 of these queries may be than what readers have."""
    min_ndcg: float | None = Field(default=None, ge=0, le=1)
    """The least nDCG@10 of these queries; left out: any."""
    min_bridge_recall: float = Field(default=0.5, ge=0, le=1)
    """The least share of the published model's own 10 results that a query over a bridge must find."""
    max_bias: float | None = Field(default=None, ge=0, le=2)
    """The largest effect size of an association of words (`reports.bias`), in either direction; left out: any, and none is measured."""
    max_imbalance: float | None = Field(default=None, ge=0, le=1)
    """The largest gap between two groups' kNN error or missed documents (`reports.balance`), beyond chance; left out: not measured."""
    min_accuracy: float | None = Field(default=None, ge=0, le=1)
    """The least share of held-out labels that the nearest rows tell (`reports.tasks`); left out: not measured."""
    min_spearman: float | None = Field(default=None, ge=-1, le=1)
    """The least rank correlation of cosines with scored pairs (`reports.tasks`); left out: not measured."""


class RetentionSpec(SpecTable):
    """How long one can go back. What is rolled back to, and what a revert of the corpus takes its vectors from, is kept as long."""

    publications: int = Field(default=10, ge=1)
    """How many of the newest publications stay."""
    days: float = Field(default=30, ge=0)
    """Publications also stay that readers had within so many days."""


class LimitsSpec(SpecTable):
    """What one input may cost. What exceeds it is a dead letter that names the limit; everything else is embedded.

    A corpus is read again when one of them changes.
    """

    document_bytes: int = Field(default=64 << 20, ge=1, le=1 << 30)
    """Bytes of a document: of its text, and of the line, record or file that it is in."""
    metadata_bytes: int = Field(default=64 << 10, ge=1)
    """Bytes of a document's metadata, which each of its chunks repeats."""
    id_bytes: int = Field(default=4096, ge=1)
    """Bytes of a document's id, which each of its chunks repeats."""
    file_rows: int = Field(default=100_000_000, ge=1)
    """Rows of one file; where JSON lines are read in pieces, of each piece."""
    file_bytes: int = Field(default=1 << 40, ge=1)
    """Bytes of one file, decompressed and decoded."""
    expansion: int = Field(default=200, ge=1)
    """Bytes of a file, decompressed and decoded, for each byte that is stored. Judged above 128 MiB only."""
    markup_seconds: int = Field(default=20, ge=1)
    """Seconds of processor time to read one document of Markdown or HTML: deep nesting takes parsers quadratic time."""


class CollectionSpec(SpecTable):
    """A corpus, a chunking and a model under a name."""

    source: SourceSpec
    """Where the documents are."""
    chunking: ChunkingSpec = ChunkingSpec()
    """How documents are cut into chunks."""
    model: ModelSpec = ModelSpec()
    """Which model embeds the chunks."""
    candidates: tuple[ModelSpec, ...] = ()
    """Further models, whose generations are built and kept current beside the main one, and published by `promote` only."""
    workers: WorkersSpec = WorkersSpec()
    """Which processes do the work, and where."""
    gates: GatesSpec = GatesSpec()
    """When a built version may be published."""
    retention: RetentionSpec = RetentionSpec()
    """How far back one can go."""
    limits: LimitsSpec = LimitsSpec()
    """What one input may cost."""
    reports: Annotated[ReportsSpec, BeforeValidator(as_reports)] = ReportsSpec()
    """What is read off the vectors of each version, for people: a list, `["map", "drift"]`, or a table with what each looks at."""
    schedule: Annotated[ScheduleSpec, BeforeValidator(as_sync)] = ScheduleSpec()
    """When flows start by themselves. A text alone is `schedule.sync`."""
    run: RunSpec = RunSpec()
    """Where runs that nobody types are started."""
    prices: PricesSpec = PricesSpec()
    """What an hour costs, for plans and records."""
    marts: MartsSpec = MartsSpec()
    """Where else the small tables go that each run leaves in the store."""


class Spec(SpecTable):
    """What stands at the top of the file."""

    store: str = "store"
    """Where tables and records are kept: a folder, or `s3://bucket/prefix`."""
    collections: dict[Annotated[str, Field(pattern=COLLECTION_NAME)], CollectionSpec] = Field(min_length=1)
    """The collections by their names, of letters, digits, `_` and `-`, at most 63."""

    def collection(self, name: str | None) -> tuple[str, CollectionSpec]:
        """The collection called `name`, or the only one. Raises SpecError."""
        if name is None:
            if len(self.collections) == 1:
                return next(iter(self.collections.items()))
            raise SpecError(f"expected the name of one of {', '.join(self.collections)}, found none: name one")
        if name not in self.collections:
            raise SpecError(f"expected one of {', '.join(self.collections)}, found {name!r}{nearest(name, self.collections)}")
        return name, self.collections[name]
