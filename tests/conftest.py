"""One Ray cluster, one object store and one Prefect server a session; corpora and specs in a folder of the test's own."""

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import apply, plan
from storage import open_published
from tests.support.objectstore import BUCKET, ObjectStore, serve
from tests.support.proxy import FaultProxy
from workers.cluster.connection import start_ray
from workers.embedding import encoding
from workers.observing.telling import Plan, Result
from workers.reports import beside
from workers.runs import filling, session

QUIET_PREFECT = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING"}
# Also under nohup, or in the background of a script, where it is ignored: runs are stopped by it, in this process and in its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
LOOPBACK_STORE = ObjectStore()
# At import: Ray, whose processes keep the environment that they were started with, may start before the object store does.
os.environ.update(LOOPBACK_STORE.environment())
for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Ray on this machine; the product joins it instead of starting its own."""
    with ExitStack() as closing:
        yield start_ray(closing)


@pytest.fixture(autouse=True)
def own_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that does not ask for Ray works in its own process, whether or not another test has started Ray before."""
    with pytest.MonkeyPatch.context() as patch:
        if "ray_cluster" not in request.fixturenames:
            for module in (beside, encoding, filling, session):
                patch.setattr(module, "on_cluster", lambda: False)
        yield


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A real S3 server, to which the AWS variables lead from the beginning."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), LOOPBACK_STORE) as store:
        yield store


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Prefect server (its `client` and `url`), the modules that are imported when it is there, and the flows. Takes 27 s to start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET_PREFECT, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}.items():
            patch.setenv(name, value)
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        from flows import reconcile
        from flows.deployment import deployments
        from flows.evaluate import evaluate
        from flows.flow_run import events
        from flows.report import report
        from flows.sync import sync
        from flows.upgrade import upgrade

        given = {
            "deployments": deployments,
            "events": events,
            "tidy": reconcile.tidy,
            "sync": sync,
            "upgrade": upgrade,
            "evaluate": evaluate,
            "report": report,
        }
        with prefect_test_harness(server_startup_timeout=180), get_client(sync_client=True) as client:
            yield SimpleNamespace(client=client, url=PREFECT_API_URL.value(), **given)


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Stands between the object store and all clients that are made from now on."""
    with FaultProxy(object_store) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:
    """A fresh prefix on the object store."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for a store: the same test on a disk and on S3."""
    return str(tmp_path / "store") if request.param == "disk" else str(request.getfixturevalue("bucket"))


@dataclass(frozen=True)
class Workplace:
    """A folder with a spec, Parquet files under data/, and a store."""

    root: Path

    def spec(self, model: str = 'name = "hash", dimensions = 16', source: str = "", rest: str = "") -> None:
        """Write revector.toml for the collection `docs`."""
        tables = 'uri = "data/*.parquet", id = "id", text = "text", metadata = ["kind"]'
        self.config.write_text(f"[collections.docs]\nsource = {{ {source or tables} }}\nmodel = {{ {model} }}\n{rest}\n")

    @property
    def config(self) -> Path:
        return self.root / "revector.toml"

    @property
    def store(self) -> str:
        return str(self.root / "store")

    def write(self, name: str, documents: dict[str, str], kind: str | Sequence[str] = "a") -> None:
        """A Parquet file of id -> text."""
        kinds = [kind] * len(documents) if isinstance(kind, str) else list(kind)
        path = self.root / "data" / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": list(documents), "text": list(documents.values()), "kind": kinds}), path)

    def remove(self, name: str) -> None:
        (self.root / "data" / name).unlink()

    def plan(self) -> Plan:
        return plan(config=self.config)

    def apply(self) -> Result:
        return apply(config=self.config)

    def update(self) -> Result:
        """Plan, apply, and hold the two against each other: a plan that errs is worse than none."""
        planned, done = self.plan(), self.apply()
        assert (planned.documents, planned.chunks, planned.reuse) == (done.documents, done.chunks, done.reuse)
        assert planned.embed["contents"] == done.embed["contents"]
        assert planned.change == done.change
        assert planned.pending == (done.change != "none")
        return done

    def published(self) -> pa.Table:
        """All rows that readers get, by chunk id."""
        return open_published(self.store, "docs").table.to_arrow().sort_by("chunk_id")

    def texts(self) -> dict[str, str]:
        """What readers get: chunk id -> text. Fails if a chunk is there twice."""
        rows = self.published()
        ids = rows["chunk_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        return dict(zip(ids, rows["text"].to_pylist(), strict=True))


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    made = Workplace(tmp_path)
    (tmp_path / "data").mkdir()
    made.spec()
    return made
