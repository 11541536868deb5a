"""Small objects and source files: the same on a disk and on S3, and whatever the store does to a request, whole or a clear error."""

import gzip
import pickle
import threading
from collections.abc import Callable
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import NotFound
from storage.sources.opening import open_source
from storage.store import s3
from storage.store.lance import Store
from storage.store.objects import Objects
from storage.store.s3 import S3FileSystem, StoreAway, StoreDenied, StoreRefused, object_store_options
from tests.support.objectstore import ObjectStore
from tests.support.proxy import Fault, FaultProxy

TABLE = pa.table({"n": range(1000)})


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more patience than a second."""
    monkeypatch.setattr(s3, "PATIENCE", 1.0)
    monkeypatch.setattr(s3, "SILENCE", 3.0)
    s3._connection.cache_clear()


def test_objects_are_kept_listed_and_removed(root: str) -> None:
    objects = Objects(root)
    assert objects.get("a/b") is objects.size("a/b") is None
    assert not objects.exists("a/b")
    assert objects.names("a") == []
    assert objects.walk("a") == {}
    objects.delete("a/b")
    objects.put("a/b", b"one")
    objects.put("a/b", b"two!")
    objects.put("a/c/d", b"")
    assert (objects.get("a/b"), objects.size("a/b"), objects.exists("a/b")) == (b"two!", 4, True)
    assert (objects.get("a/c/d"), objects.size("a/c/d")) == (b"", 0)
    assert objects.names("a") == ["b", "c"]
    assert objects.walk("a") == {"a/b": 4, "a/c/d": 0}
    objects.remove("a/c")
    assert objects.walk("a") == {"a/b": 4}
    assert pickle.loads(pickle.dumps(objects)).get("a/b") == b"two!"


def test_second_writer_is_told_so_and_one_whose_reply_was_lost_that_it_was_first(root: str) -> None:
    objects = Objects(root)
    assert objects.put_if_absent("key", b"first")
    assert not objects.put_if_absent("key", b"second")
    assert objects.put_if_absent("key", b"first")
    assert objects.get("key") == b"first"


ACTIONS: dict[str, tuple[str, Callable[[Objects], object]]] = {
    "put": ("PUT", lambda objects: (objects.put("new", b"data"), objects.get("new") == b"data")[1]),
    "put if absent": ("PUT", lambda objects: objects.put_if_absent("new", b"data") and objects.get("new") == b"data"),
    "get": ("GET", lambda objects: objects.get("old") == b"data"),
    "size": ("HEAD", lambda objects: objects.size("old") == 4),
    "names": ("LIST", lambda objects: objects.names("") == ["old"]),
    "delete": ("DELETE", lambda objects: (objects.delete("old"), objects.get("old") is None)[1]),
}


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        *(("put if absent", kind) for kind in ("500", "503", "drop", "drop after", "hang")),
        *(("get", kind) for kind in ("500", "drop", "cut", "hang")),
        *(("put", "drop after"), ("size", "503"), ("names", "drop"), ("names", "cut"), ("delete", "drop after")),
    ],
)
def test_request_that_fails_is_made_again(bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, action: str, kind: Any) -> None:
    monkeypatch.setattr(s3, "SILENCE", 1.0)
    s3._connection.cache_clear()
    Objects(bucket).put("old", b"data")
    method, act = ACTIONS[action]
    times = 1 if kind == "hang" else 3
    proxy.inject(Fault(kind, method, times=times))
    assert act(Objects(bucket))
    assert [hit.kind for hit in proxy.hits] == [kind] * times


def test_of_writers_whose_replies_are_lost_one_wins(bucket: str, proxy: FaultProxy) -> None:
    proxy.inject(Fault("drop after", "PUT", times=6))
    won: list[int] = []

    def claim(writer: int) -> None:
        if Objects(bucket).put_if_absent("key", str(writer).encode()):
            won.append(writer)

    threads = [threading.Thread(target=claim, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Objects(bucket).get("key") == str(won[0]).encode()


def one_line(error: BaseException, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert "<" not in text
    for part in ("expected", "found", *parts):
        assert part in text
    assert "not-a-secret-of-anyone" not in text


REQUESTS: dict[str, Callable[[str], Any]] = {
    "s3fs": lambda root: Objects(root).names(""),
    "lance, to list": lambda root: Store(root).open("t"),
    "lance, to write": lambda root: Store(root).stage("t", TABLE.schema, TABLE.to_batches()),
}


@pytest.mark.parametrize(
    ("client", "kind"),
    [*(("s3fs", kind) for kind in ("500", "503", "drop", "hang")), ("lance, to list", "500"), ("lance, to write", "hang")],
)
def test_store_that_stays_away_is_told_of(bucket: str, proxy: FaultProxy, hurried: None, client: str, kind: Any) -> None:
    lance.write_dataset(TABLE, f"{bucket}/t.lance", storage_options=object_store_options(bucket))
    proxy.inject(Fault(kind, "PUT" if client == "lance, to write" else "LIST", times=10_000))
    with pytest.raises(StoreAway) as failure:
        REQUESTS[client](bucket)
    one_line(failure.value, proxy.endpoint.removeprefix("http://"), "run again when it is back")


@pytest.mark.parametrize("client", ["s3fs", "lance, to write"])
def test_denial_is_told_at_once(bucket: str, proxy: FaultProxy, client: str) -> None:
    lance.write_dataset(TABLE, f"{bucket}/t.lance", storage_options=object_store_options(bucket))
    proxy.inject(Fault("403", "LIST|PUT", times=10_000))
    with pytest.raises(StoreDenied) as failure:
        REQUESTS[client](bucket)
    one_line(failure.value, "AccessDenied", "policy")
    assert len(proxy.hits) < 10


@pytest.mark.parametrize("client", ["s3fs", "lance, to list"])
@pytest.mark.parametrize(("variable", "value"), [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "wrong")])
def test_keys_that_are_not_good_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch, client: str, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreRefused) as failure:
        REQUESTS[client](bucket)
    one_line(failure.value, variable)


@pytest.mark.parametrize("client", ["s3fs", "lance, to list"])
def test_bucket_that_is_not_there_is_no_empty_store(object_store: ObjectStore, client: str) -> None:
    with pytest.raises(StoreRefused) as failure:
        REQUESTS[client]("s3://no-such-bucket/store")
    one_line(failure.value, "NoSuchBucket", "create the bucket")


def test_table_of_a_store_that_is_away_is_not_taken_for_one_that_is_not_there(bucket: str, proxy: FaultProxy, hurried: None) -> None:
    lance.write_dataset(TABLE, f"{bucket}/t.lance", storage_options=object_store_options(bucket))
    with pytest.raises(NotFound):
        Store(bucket).open("another")
    with pytest.raises(NotFound):
        Store(bucket).open("t", 7)
    proxy.inject(Fault("500", "GET", times=10_000))
    with pytest.raises(StoreAway):
        Store(bucket).open("t")


def test_each_client_goes_where_the_variables_say_when_it_is_made(bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    through = Objects(bucket)
    through.put("a", b"")
    count = len(proxy.requests)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.store.endpoint)
    Objects(bucket).put("b", b"")
    assert len(proxy.requests) == count
    through.put("c", b"")
    assert len(proxy.requests) == count + 1


TEXTS = [f"document {n} " + "word " * 40 for n in range(4000)]


def as_parquet(path: str, filesystem: S3FileSystem) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [str(n) for n in range(len(TEXTS))], "text": TEXTS}), sink, row_group_size=500, compression="none")
    filesystem.pipe_file(path, sink.getvalue().to_pybytes())


def as_lines(path: str, filesystem: S3FileSystem) -> None:
    lines = "".join(f'{{"id": "{n}", "text": "{text}"}}\n' for n, text in enumerate(TEXTS)).encode()
    filesystem.pipe_file(path, gzip.compress(lines, 0) if path.endswith(".gz") else lines)


def as_lance(path: str, _: S3FileSystem) -> None:
    uri = f"s3://{path}"
    lance.write_dataset(
        pa.table({"id": [str(n) for n in range(len(TEXTS))], "text": TEXTS}), uri, storage_options=object_store_options(uri)
    )


FORMATS = [("a.parquet", as_parquet), ("a.jsonl", as_lines), ("a.jsonl.gz", as_lines), ("a.lance", as_lance)]


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_source_file_whose_connection_breaks_off_is_read_whole(
    bucket: str, proxy: FaultProxy, name: str, write: Callable[[str, S3FileSystem], None]
) -> None:
    write(f"{bucket.removeprefix('s3://')}/{name}", S3FileSystem())
    proxy.inject(Fault("cut", "GET", name, times=2), Fault("cut", "GET", name, skip=3))
    assert read(f"{bucket}/{name}") == TEXTS
    assert len(proxy.hits) >= 2


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_source_file_whose_rest_cannot_be_had_is_a_failure_of_the_store(
    bucket: str, proxy: FaultProxy, hurried: None, name: str, write: Callable[[str, S3FileSystem], None]
) -> None:
    """Neither a dead letter of the file, nor a file that ends where the connection did."""
    write(f"{bucket.removeprefix('s3://')}/{name}", S3FileSystem())
    proxy.inject(Fault("cut", "GET", name, times=10_000))
    with pytest.raises(StoreAway):
        read(f"{bucket}/{name}")


def read(uri: str) -> list[str]:
    """All texts of a corpus, in order."""
    from pipelines.spec.declared import SourceSpec

    corpus = open_source(SourceSpec(uri=uri, id="id", text=("text",)))
    files = corpus.files()
    batches = [batch for shard in corpus.shards(files, 100_000) for batch in corpus.read(shard, None)]
    assert not [letter for batch in batches for letter in batch.dead]
    return [text for batch in batches for text in batch.documents.column("text").to_pylist()]
