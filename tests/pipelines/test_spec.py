"""Every error of a spec names the key, what was expected and what was found."""

from pathlib import Path

import pytest

from pipelines.errors import SpecError
from pipelines.spec.parsing import dump_spec, load_spec, parse_spec
from workers.planning.state import read_state
from workers.planning.target import resolve_target

SOURCE = {"uri": "data"}


def check(**tables: object) -> None:
    parse_spec({"collections": {"a": {"source": SOURCE, **tables}}}, Path("/base"))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"source": {**SOURCE, "idd": "x"}}, "collections.a.source.idd: expected one of uri, id, .*; did you mean 'id'?"),
        ({"chunkin": {}}, "collections.a.chunkin: .*did you mean 'chunking'?"),
        ({"source": {**SOURCE, "metadata": {"price": "flot"}}}, "collections.a.source.metadata.price: expected 'auto', .*, found 'flot'"),
        ({"source": {**SOURCE, "metadata": 5}}, "collections.a.source.metadata: expected a list of columns, or a table of .*, found 5"),
        ({"source": {**SOURCE, "metadata": ["a", "a"]}}, "collections.a.source.metadata: expected the names of columns, each once"),
        ({"source": {**SOURCE, "delimiter": "::"}}, "collections.a.source.delimiter: expected one ASCII character .*, found '::'"),
        ({"source": {**SOURCE, "encoding": "utf9"}}, "collections.a.source.encoding: expected an encoding of text .*, found 'utf9'"),
        ({"source": {}}, "collections.a.source.uri: expected a value, found none"),
        ({"chunking": {"size": "big"}}, "collections.a.chunking.size: expected an? integer, found 'big'"),
        ({"chunking": {"by": "word"}}, "collections.a.chunking.by: expected 'tokens', 'stable' or 'document', found 'word'"),
        ({"chunking": {"size": 10, "overlap": 9}}, "collections.a.chunking: expected overlap of at most half of size"),
        ({"chunking": {"by": "stable", "overlap": 2}}, "collections.a.chunking: expected overlap = 0 with by = 'stable', found 2"),
        ({"model": {"name": "hash"}}, "collections.a.model.dimensions: expected a number with name = 'hash', found none"),
        ({"workers": {"gpus_per_actor": 1.5}}, "collections.a.workers.gpus_per_actor: expected a part of one GPU or whole ones, found 1.5"),
        ({"workers": {"label": {"pool": "in(gpu"}}}, "collections.a.workers.label: expected a Ray label and .*found 'pool' = 'in.gpu'"),
        ({"workers": {"label": {"ray.io/node-id": "x"}}}, "collections.a.workers.label: expected a label that outlives a cluster"),
        ({"limits": {"document_byte": 1}}, "collections.a.limits.document_byte: expected one of .*did you mean 'document_bytes'?"),
        ({"schedule": "0 25 * * *"}, r"collections.a.schedule.sync: expected a cron expression like .*found '0 25 \* \* \*'"),
        (
            {"schedule": {"sync": "0 3 * * *", "timezone": "Berlin"}},
            "collections.a.schedule.timezone: expected a time zone like .*found .Berlin.",
        ),
        ({"run": {"cluster": "ray://head:10001"}}, "collections.a.run.cluster: expected the address of a Ray cluster's Jobs API, http"),
        (
            {"run": {"cluster": "http://me:secret@head:8265"}},
            "collections.a.run.cluster: expected an address without credentials, found some",
        ),
        (
            {"marts": {"postgres": "postgresql://me:secret@host/db"}},
            'collections.a.marts.postgres: expected "env:NAME", a variable .*, found something else: an address may have a password$',
        ),
        ({"gates": {"max_failed": 2}}, "collections.a.gates.max_failed: expected less than or equal to 1, found 2"),
    ],
)
def test_errors_name_the_key(tables: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("?", r"\?") if message.endswith("'?") else message):
        check(**tables)


def test_what_only_the_model_or_the_corpus_can_tell_names_the_collection_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n")
    spec = {"source": {"uri": "a.csv"}, "model": {"name": "hash", "dimensions": 8}}
    with pytest.raises(SpecError, match=r"collections\.a\.source\.id: expected the column that names a document"):
        read_state(resolve_target(parse_spec({"collections": {"a": spec}}, tmp_path), None))
    short = spec | {"source": {"uri": "docs"}, "chunking": {"size": 64}, "model": {"name": "hash", "dimensions": 8, "prompt": "word " * 70}}
    with pytest.raises(SpecError, match=r"collections\.a\.chunking\.size: expected at least \d+.*, found 64"):
        resolve_target(parse_spec({"collections": {"a": short}}, tmp_path), None)


def test_names_that_cannot_be_tables_are_refused() -> None:
    for name in ("../evil", "a/b", "a.b", "", "x" * 64, "_hidden"):
        with pytest.raises(SpecError, match="expected a name of letters"):
            parse_spec({"collections": {name: {"source": SOURCE}}}, Path("/base"))


def test_paths_are_seen_from_the_file_and_an_argument_goes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "revector.toml"
    file.write_text('store = "kept"\n[collections.a]\nsource = { uri = "data/*.csv", id = "id", text = "t" }\n')
    spec = load_spec(file, environ={})
    assert (spec.store, spec.collections["a"].source.uri) == (f"{tmp_path}/kept", f"{tmp_path}/data/*.csv")
    assert spec.collections["a"].source.text == ("t",)
    assert load_spec(file, environ={"REVECTOR_STORE": "s3://bucket/x"}).store == "s3://bucket/x"
    assert load_spec(file, "/other", environ={"REVECTOR_STORE": "s3://bucket/x"}).store == "/other"
    assert load_spec(environ={"REVECTOR_CONFIG": str(file)}).store == f"{tmp_path}/kept"


def test_a_resolved_collection_travels_as_json(tmp_path: Path) -> None:
    file = tmp_path / "revector.toml"
    file.write_text(
        '[collections.a]\nsource = { uri = "data" }\nschedule = "0 3 * * *"\n[collections.b]\nsource = { uri = "s3://bucket/b" }\n'
    )
    spec = load_spec(file, environ={})
    sent = tmp_path / "elsewhere" / "spec.json"
    sent.parent.mkdir()
    sent.write_bytes(dump_spec(spec, "a"))

    received = load_spec(sent, environ={})

    assert list(received.collections) == ["a"]
    assert (received.store, received.collections["a"]) == (spec.store, spec.collections["a"])
    assert received.collections["a"].schedule.sync == "0 3 * * *"


def test_a_file_that_is_no_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing.toml, found none: `revector init`"):
        load_spec(tmp_path / "missing.toml", environ={})
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(SpecError, match=r"bad.toml: expected TOML"):
        load_spec(tmp_path / "bad.toml", environ={})
