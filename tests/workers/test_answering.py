"""The process that makes vectors of questions: a line for a line, two encoders at most, and no question in any message."""

import subprocess
import sys
import time
from typing import Any

import numpy as np
import orjson

from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from workers.answering import MOST_ENCODERS, AtHand, answers
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder

SECRET = "a question that nobody else should read"


def asked(number: int, *texts: str, dimensions: int = 8, space: str | None = None, **fields: Any) -> bytes:
    model = ModelSpec(name="hash", dimensions=dimensions, **fields)
    return orjson.dumps(
        {"id": number, "model": model.model_dump(mode="json"), "space": space or resolve_model(model).space.id, "texts": texts}
    )


def told(*questions: bytes, at_hand: AtHand | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in answers(questions, at_hand or AtHand())]


def test_a_question_has_the_vector_that_a_search_gives_it() -> None:
    spec = ModelSpec(name="hash", dimensions=8, query_prompt="ask: ")
    (answer,) = told(asked(7, "tides", "storms", query_prompt="ask: "))
    meant = encode(load_encoder(resolve_model(spec)), ["tides", "storms"], "query").vectors
    assert answer["id"] == 7
    assert np.array_equal(np.array(answer["vectors"], np.float32), meant)


def test_no_question_loads_the_model() -> None:
    at_hand = AtHand()
    assert told(asked(1), at_hand=at_hand) == [{"id": 1, "vectors": []}]
    assert len(at_hand._encoders) == 1


def test_two_encoders_stay_at_hand_those_that_were_asked_last() -> None:
    at_hand = AtHand()
    told(*(asked(1, "a", dimensions=dimensions) for dimensions in (8, 9, 8, 10)), at_hand=at_hand)
    assert len(at_hand._encoders) == MOST_ENCODERS
    assert [encoder.model.space.dimension for encoder in at_hand._encoders.values()] == [8, 10]


def test_the_same_space_with_another_query_prompt_is_another_encoder() -> None:
    first, second = told(asked(1, "a"), asked(2, "a", query_prompt="ask: "))
    assert first["vectors"] != second["vectors"]


def test_what_cannot_be_answered_is_one_line_without_the_question_and_the_next_is_answered() -> None:
    other_space, no_model, no_sense, fine = told(
        asked(1, SECRET, space="0" * 16),
        orjson.dumps({"id": 2, "model": {"name": "/nowhere/at/all"}, "space": "0" * 16, "texts": [SECRET]}),
        orjson.dumps({"id": 3, "model": {"name": 5}, "space": "", "texts": [SECRET]}),
        asked(4, SECRET),
    )
    for number, refused in enumerate((other_space, no_model, no_sense), 1):
        assert refused["id"] == number
        assert SECRET not in refused["error"]
        assert "\n" not in refused["error"]
    assert "were its files replaced" in other_space["error"]
    assert len(fine["vectors"]) == 1


def test_a_model_that_moved_is_found_by_the_askers_own_spec() -> None:
    spec = ModelSpec(name="hash", dimensions=8)
    moved = orjson.dumps({"id": 1, "model": {"name": "/moved/away"}, "space": resolve_model(spec).space.id, "texts": ["a"]})
    assert "error" in told(moved)[0]
    assert "vectors" in told(moved, at_hand=AtHand([spec]))[0]


def process(code: str = "import workers.answering as a; a.main()", *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_process_answers_until_nobody_asks_any_more() -> None:
    with process("print('noise'); import workers.answering as a; a.main()") as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(asked(1, "a") + b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"noise\n"
        assert orjson.loads(child.stdout.readline())["id"] == 1
        child.stdin.close()
        assert child.wait(timeout=10) == 0


def test_the_process_ends_when_it_is_idle() -> None:
    began = time.monotonic()
    with process("import workers.answering as a; a.IDLE_SECONDS = 1; a.main()") as child:
        assert child.wait(timeout=60) == 0
    assert time.monotonic() - began < 60
