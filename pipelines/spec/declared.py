"""`revector.toml`: what a person declares. Read once, checked whole, immutable afterwards."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipelines.errors import SpecError
from pipelines.spec.keys import SpecTable, nearest, shorten
from pipelines.spec.running import PricesSpec, RunSpec, ScheduleSpec, WorkersSpec, as_sync

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

Format = Literal["parquet", "jsonl", "csv", "lance", "text", "markdown", "html"]
TABULAR: tuple[Format, ...] = ("parquet", "jsonl", "csv", "lance")
COLLECTION_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Fields = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class SourceSpec(SpecTable):
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
            raise ValueError(f"expected the names of columns, each once and without NUL, found {shorten(list(names))}")
        return names

    format: Format | None = None
    """None: by suffix."""
    duplicates: Literal["first", "last", "error"] = "first"
    """Which document to keep when an id occurs twice, in file order."""


class ChunkingSpec(SpecTable):
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


class ModelSpec(SpecTable):
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


class GatesSpec(SpecTable):
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


class RetentionSpec(SpecTable):
    """How long one can go back. What is rolled back to, and what a revert of the corpus takes its vectors from, is kept as long."""

    publications: int = Field(default=10, ge=1)
    """The newest so many stay."""
    days: float = Field(default=30, ge=0)
    """Those stay that readers had within so many days."""


class LimitsSpec(SpecTable):
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


class CollectionSpec(SpecTable):
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
    schedule: Annotated[ScheduleSpec, BeforeValidator(as_sync)] = ScheduleSpec()
    run: RunSpec = RunSpec()
    prices: PricesSpec = PricesSpec()


class Spec(SpecTable):
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
