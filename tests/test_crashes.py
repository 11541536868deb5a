"""A run that is killed at any moment is finished by the same command, exactly."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import apply
from pipelines.errors import Conflict
from tests.conftest import Workplace

DOCUMENTS = 30_000


def load(workplace: Workplace) -> None:
    for part in range(3):
        ids = range(part * DOCUMENTS // 3, (part + 1) * DOCUMENTS // 3)
        workplace.write(f"{part}.parquet", {f"d{id}": f"text number {id // 2}" for id in ids})


def start(workplace: Workplace) -> subprocess.Popen[bytes]:
    """`revector apply` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "apply"],
        cwd=workplace.root,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.timeout(280)
def test_a_load_that_is_killed_again_and_again_ends_as_an_uninterrupted_one(workplace: Workplace, ray_cluster: object) -> None:
    load(workplace)
    rng = random.Random(0)
    for _ in range(3):
        process = start(workplace)
        time.sleep(rng.uniform(2, 9))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = apply(config=workplace.config)
    assert done.status in ("published", "nothing")
    assert workplace.texts() == {f"d{id}#0": f"text number {id // 2}" for id in range(DOCUMENTS)}


@pytest.mark.timeout(120)
def test_of_two_runs_at_once_one_is_refused(workplace: Workplace, ray_cluster: object) -> None:
    load(workplace)
    process = start(workplace)
    fence = Path(workplace.store) / "_revector/docs/fence/000000000001.json"
    while not fence.exists():
        assert process.poll() is None, "the first run ended before it began"
        time.sleep(0.05)
    with pytest.raises(Conflict, match="in progress"):
        apply(config=workplace.config)
    assert process.wait() == 0
    assert apply(config=workplace.config).status == "nothing"
    assert len(workplace.texts()) == DOCUMENTS
