"""A secret or the text of a document is where it was put, and in no record, log, artifact or message besides."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import main
from pipelines.errors import ModelError, SpecError
from pipelines.redaction import redact
from pipelines.spec.parsing import parse_spec
from storage.history.catalog import all_publications
from storage.store.lance import Store
from storage.store.objects import Objects
from tests.conftest import QUIET_PREFECT, Workplace
from tests.support.objectstore import ObjectStore
from workers.embedding import actor, pool
from workers.embedding.embed_shard import Embedding, Receipt, Shard

TEXT = "canarytext"
"""In every document, and in nothing that a person or the program gives a name."""
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY1234",
    "AWS_SECRET_ACCESS_KEY": "canarysecret/access+key",
    "AWS_SESSION_TOKEN": "canarysession//token==",
    "HF_TOKEN": "hf_canaryhub",
}
IN_URI = "canarypassword"
NEEDLES = [*SECRETS.values(), IN_URI, TEXT]

Revector = Callable[..., tuple[int, str]]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def revector(workplace: Workplace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Revector:
    """The command line: its exit code, and all that it wrote on both streams."""
    monkeypatch.chdir(workplace.root)

    def run(*arguments: str, debug: bool = False) -> tuple[int, str]:
        code = main._run(list(arguments), debug)
        streams = capfd.readouterr()
        return code, streams.out + streams.err

    return run


def clean(text: str) -> None:
    assert [needle for needle in NEEDLES if needle in text] == []


def records(root: str) -> Iterator[tuple[str, str]]:
    """Every object of a store that is not the data of a table, readable."""
    objects = Objects(root)
    for key in objects.walk(""):
        if "/data/" in key or "/_indices/" in key:
            continue
        data = objects.get(key) or b""
        packed = pq.read_table(pa.BufferReader(data)).to_pylist() if key.endswith(".parquet") else ""
        yield key, data.decode(errors="replace") + str(packed)
    yield "catalog", str(all_publications(Store(root)))


def assert_no_record_tells(root: str, at_least: int) -> None:
    found = dict(records(root))
    assert len(found) >= at_least
    for key, text in found.items():
        assert [needle for needle in NEEDLES if needle in f"{key}{text}"] == [], key


def write_broken(folder: Path) -> None:
    """Rows of every format that cannot be used, each with the text in it, and one of metadata that is not of its type."""
    lines = [{"id": f"j{number}", "text": f"{TEXT} {number}", "kind": number} for number in range(50)]
    good = "".join(json.dumps(line) + "\n" for line in lines)
    bad = (
        f'{{"id": "j50", "text": "{TEXT}\n'
        + json.dumps({"id": [TEXT], "text": TEXT})
        + "\n"
        + json.dumps({"id": "j51", "text": {"a": TEXT}})
    )
    (folder / "a.jsonl").write_text(f'{good}{bad}\n{json.dumps({"id": "j52", "text": TEXT, "kind": TEXT})}\n"{TEXT}"\n[{TEXT}]\n')
    (folder / "b.csv").write_text(f'id,text,kind\nc1,{TEXT},1\nc2,{TEXT},{TEXT},{TEXT}\nc3,"{TEXT}\nc4,{TEXT},{TEXT}\n')
    (folder / "c.parquet").write_bytes(b"PAR1" + TEXT.encode() * 100 + b"PAR1")
    pq.write_table(pa.table({"id": ["p1", None], "text": [TEXT, TEXT], "kind": [TEXT, "2"]}), folder / "d.parquet")
    (folder / "e.jsonl.gz").write_bytes(b"\x1f\x8b" + TEXT.encode())


@pytest.mark.usefixtures("secrets")
def test_runs_of_every_outcome_tell_nothing(workplace: Workplace, revector: Revector, monkeypatch: pytest.MonkeyPatch) -> None:
    data = workplace.root / "data"
    workplace.spec(source='uri = "data", id = "id", text = "text", metadata = ["kind"]', rest="gates = { max_failed = 0 }")
    write_broken(data)
    for arguments, code in (
        (["plan", "--json"], 2),
        (["plan", "--out", "kept.json"], 2),
        (["apply", "--json"], 3),
        (["apply"], 3),
        (["status", "docs", "--json"], 0),
    ):
        found, told = revector(*arguments)
        assert found == code, told
        clean(told)
    clean((workplace.root / "kept.json").read_text())
    workplace.spec(source='uri = "data", id = "id", text = "text", metadata = ["kind"]', rest="gates = { max_failed = 1 }")
    assert revector("apply", "--json")[0] == 4
    for arguments in (["status", "docs"], ["history", "--json"], ["history"], ["evaluate", "docs", "--json"], ["doctor", "--json"]):
        clean(revector(*arguments)[1])
    for where in ("kind=canary", "nothing=1", f"{TEXT}=1"):
        code, told = revector("search", "docs", "words", "--where", where, "--json")
        assert code == (0 if where == "kind=canary" else 64)
    letters = json.loads(revector("status", "docs", "--json")[1])["collections"][0]["letters"]
    assert len(letters) >= 8
    assert_no_record_tells(workplace.store, at_least=15)


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("error", [ValueError, OSError, ModelError])
def test_an_error_that_quotes_a_text_or_a_secret_is_recorded_without(
    workplace: Workplace, revector: Revector, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Of a foreign one the kind is kept; ours have no texts, but may repeat what a store said."""
    from workers.runs import apply

    said = " ".join([*SECRETS.values(), f"http://me:{IN_URI}@host/x", "" if error is ModelError else TEXT])

    def fail(*_: Any, **__: Any) -> None:
        raise error(said)

    monkeypatch.setattr(apply, "ingest_corpus", fail)
    workplace.write("a.parquet", {"d1": TEXT})
    code, told = revector("apply", "--json", debug=error is not OSError)
    assert code == 1
    assert error.__name__ in told or error is ModelError
    assert not any(secret in told for secret in [*SECRETS.values(), IN_URI])
    assert_no_record_tells(workplace.store, at_least=3)


class Faulty(actor.EmbedActor):
    """Raises with what it was given."""

    def run(self, embedding: Embedding, shard: Shard) -> Receipt:
        raise ValueError(f"{TEXT} {SECRETS['AWS_SECRET_ACCESS_KEY']}")


@pytest.mark.usefixtures("secrets")
def test_an_actor_that_fails_with_a_text_leaves_it_in_no_record_and_no_log_of_ray(
    workplace: Workplace, ray_cluster: Any, revector: Revector, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", Faulty)
    workplace.spec(rest="workers = { actors = 1 }\ngates = { max_failed = 1 }")
    workplace.write("a.parquet", {"d1": f"{TEXT} 1", "d2": f"{TEXT} 2"})
    code, told = revector("apply", "--json")
    clean(told)
    assert code == 4, told
    assert_no_record_tells(workplace.store, at_least=5)
    logs = Path(ray_cluster._private.worker.global_worker.node.get_session_dir_path()) / "logs"
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert any(path.name.startswith("python-core-worker") for path in files)
    assert [path.name for path in files for needle in NEEDLES if needle.encode() in path.read_bytes()] == []


URIS = {
    "store": lambda uri: {"store": uri, "collections": {"a": {"source": {"uri": "data"}}}},
    "source.uri": lambda uri: {"collections": {"a": {"source": {"uri": uri}}}},
    "gates.queries": lambda uri: {"collections": {"a": {"source": {"uri": "data"}, "gates": {"queries": uri}}}},
    "model.name": lambda uri: {"collections": {"a": {"source": {"uri": "data"}, "model": {"name": uri}}}},
    "candidates.0.name": lambda uri: {"collections": {"a": {"source": {"uri": "data"}, "candidates": [{"name": uri}]}}},
}
WITH_CREDENTIALS = [
    f"s3://key:{IN_URI}@bucket/a",
    f"s3://{IN_URI}@bucket",
    f"https://user:{IN_URI}@host/a",
    f"https://host/a?X-Amz-Signature={IN_URI}",
    f"s3://bucket/a?aws_secret_access_key={IN_URI}",
]


@pytest.mark.parametrize("uri", WITH_CREDENTIALS)
@pytest.mark.parametrize(("key", "spec"), URIS.items(), ids=URIS)
def test_credentials_in_a_uri_are_refused_and_not_repeated(key: str, spec: Callable[[str], dict[str, Any]], uri: str) -> None:
    with pytest.raises(SpecError, match=f"{key}: expected a URI without credentials") as raised:
        parse_spec(spec(uri), Path("/base"))
    assert IN_URI not in str(raised.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"store": ["s3://key:canarypassword@bucket"], "collections": {"a": {"source": {"uri": "data"}}}},
        {"collections": {"a": {"source": "s3://key:canarypassword@bucket"}}},
        {"collections": {"a": {"source": {"uri": {"secret": "https://key:canarypassword@host"}}}}},
        {"collections": {"a": {"source": {"uri": "data", "format": "s3://key:canarypassword@bucket"}}}},
        {"collections": {"a": {"source": {"uri": "data", "aws_secret_access_key": "canarypassword"}}}},
        {"collections": {"s3://key:canarypassword@bucket": {"source": {"uri": "data"}}}},
    ],
)
def test_a_spec_that_is_wrong_in_another_way_does_not_repeat_them_either(spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec(spec, Path("/base"))
    assert IN_URI not in str(raised.value)


@pytest.mark.parametrize(
    "command", [["plan"], ["apply"], ["status"], ["search", "docs", "x"], ["doctor", "--json"]], ids=lambda each: each[0]
)
def test_an_object_store_that_refuses_the_keys_does_not_make_them_known(
    workplace: Workplace, revector: Revector, object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    workplace.write("a.parquet", {"d1": TEXT})
    monkeypatch.setenv("REVECTOR_STORE", bucket)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, SECRETS[name])
    code, told = revector(*command, debug=True)
    assert code == 1, told
    clean(told)
    assert object_store.access_key not in told
    assert object_store.secret_key not in told


def test_an_endpoint_with_a_password_is_refused_without_it(
    workplace: Workplace, revector: Revector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVECTOR_STORE", "s3://bucket/a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{IN_URI}@127.0.0.1:9")
    code, told = revector("status", debug=True)
    assert code == 1
    clean(told)


def test_a_run_on_an_object_store_records_no_keys(workplace: Workplace, revector: Revector, object_store: ObjectStore, bucket: str) -> None:
    workplace.write("a.parquet", {f"d{number}": f"{TEXT} {number}" for number in range(5)})
    code, told = revector("apply", "--store", bucket, "--json")
    assert code == 0, told
    clean(told)
    found = dict(records(bucket))
    assert any(key.endswith("intent.json") for key in found)
    for key, text in found.items():
        assert not any(needle in text for needle in (object_store.access_key, object_store.secret_key, TEXT)), key


SIGNED = """<Error>
<Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>ASIA0123456789ABCDEF</AWSAccessKeyId><StringToSign>AWS4
canarypassword</StringToSign><CanonicalRequest>x-amz-security-token:canarypassword
</CanonicalRequest></Error>
GET http://a/b?X-Amz-Credential=canarypassword&X-Amz-Signature=canarypassword x-amz-security-token: canarypassword
s3://key:canarypassword@bucket/a AKIA0123456789ABCDEF"""


def test_what_stores_say_is_told_without_what_was_signed() -> None:
    told = redact(SIGNED, {})
    assert [needle for needle in ("canarypassword", "ASIA0123", "AKIA0123") if needle in told] == []
    assert "SignatureDoesNotMatch" in told
    assert "bucket/a" in told


def test_texts_without_secrets_stay_as_they_are() -> None:
    plain = "expected s3://bucket/part-?.parquet, found a@b, key = 3, token: none, http://host/a"
    assert redact(plain, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": ""}) == plain


@pytest.mark.nightly
@pytest.mark.usefixtures("secrets")
@pytest.mark.timeout(400)
def test_a_flow_leaves_nothing_with_prefect(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its logs, artifacts and states: a partial publication, and a run that ends with an error."""
    for name, value in {**QUIET_PREFECT, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_LOGGING_LEVEL": "INFO"}.items():
        monkeypatch.setenv(name, value)
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    from flows.sync import sync

    source = 'uri = "data", id = "id", text = "text", metadata = ["kind"]'
    write_broken(workplace.root / "data")
    with prefect_test_harness(server_startup_timeout=180), get_client(sync_client=True) as client:
        workplace.spec(source=source, rest="gates = { max_failed = 1 }")
        partial = sync("docs", str(workplace.config), return_state=True)
        workplace.spec(source=source, model="name = '/nowhere'")
        failed = sync("docs", str(workplace.config), return_state=True)
        assert (partial.name, failed.type.value) == ("Partial", "FAILED")
        deadline = time.monotonic() + 60
        while len(logs := client.read_logs()) < 5 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert any("nowhere" in log.message for log in logs)
        kept = [*logs, *client.read_artifacts(), *client.read_flow_runs(), partial, failed]
    clean(" ".join(str(each) for each in kept))
