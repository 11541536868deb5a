"""The process that makes vectors of questions: a line of JSON asks, a line of JSON answers, until nobody has asked for a while.

    -> {"id": 1, "model": {"name": "..."}, "space": "0f3a...", "texts": ["..."]}
    <- {"id": 1, "vectors": [[...]]}    or    {"id": 1, "error": "..."}

No texts: the model is loaded, for questions that are about to come.

It lives apart from whoever asks, so that models take the memory of a process that comes and goes. `python -m workers.answering`; each
argument is a model of the asker's own spec, in JSON: one of them serves if a model is no longer where its record says.
"""

import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import orjson

from pipelines.errors import RevectorError
from pipelines.redaction import redact
from pipelines.spaces.known import known_models, model_of
from pipelines.spec.declared import ModelSpec
from workers.encoders.encoder import Encoder, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine

IDLE_SECONDS = 600
MOST_ENCODERS = 2
"""That are kept: those of the spaces that were asked for last."""
ONE_THREAD = Machine(threads=1)
"""A question is a few words: 8 ms on one thread, 200 on two that wait for each other on a busy machine."""


class AtHand:
    """The encoders that are at hand."""

    def __init__(self, specs: Sequence[ModelSpec] = ()) -> None:
        self._specs = specs
        self._encoders: OrderedDict[tuple[str, str | None], Encoder] = OrderedDict()

    def encoder(self, recorded: ModelSpec, space: str) -> Encoder:
        """Of the model that made the vectors of `space`. Raises ModelError if it is not there any more."""
        key = space, recorded.query_prompt
        if key not in self._encoders:
            model = model_of(space, recorded, known_models(self._specs))
            while len(self._encoders) >= MOST_ENCODERS:  # before another one comes: memory is for so many
                self._encoders.popitem(last=False)
            self._encoders[key] = load_encoder(model, ONE_THREAD)
        self._encoders.move_to_end(key)
        return self._encoders[key]


def answers(questions: Iterable[bytes], loaded: AtHand) -> Iterator[bytes]:
    """A line for each line."""
    for line in questions:
        asked: Mapping[str, Any] = orjson.loads(line)
        yield orjson.dumps({"id": asked["id"], **_answer(asked, loaded)}, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"


def _answer(asked: Mapping[str, Any], loaded: AtHand) -> dict[str, Any]:
    try:
        encoder = loaded.encoder(ModelSpec(**asked["model"]), asked["space"])
        return {"vectors": encode(encoder, asked["texts"], "query").vectors if asked["texts"] else []}
    except RevectorError as error:
        return {"error": redact(str(error))}
    except Exception as error:  # noqa: BLE001  the outermost edge; the message of a foreign error may quote the question
        return {"error": f"expected vectors from the model, found {type(error).__name__}: try it with `revector search --debug`"}


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    """Until the asker is gone, or nothing has come for IDLE_SECONDS."""
    while True:
        signal.alarm(IDLE_SECONDS)
        line = source.readline()
        signal.alarm(0)
        if not line:
            return
        yield line


def main() -> None:
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the asker, whose end closes the input
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for answer in answers(_lines(sys.stdin.buffer), AtHand([ModelSpec(**orjson.loads(spec)) for spec in sys.argv[1:]])):
        out.write(answer)
        out.flush()


if __name__ == "__main__":
    main()
