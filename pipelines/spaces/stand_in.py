"""The stand-in for tests of scale: a model without weights, whose space is an algorithm."""

from pipelines.errors import SpecError
from pipelines.spaces.space import STAND_IN, STAND_IN_ALGORITHM, Model, Space
from pipelines.spec.declared import ModelSpec

STAND_IN_MAX_TOKENS = 1_000_000
"""The stand-in reads everything; a limit is stated because a chunker asks for one."""


def stand_in_model(spec: ModelSpec) -> Model:
    if spec.dimensions is None:
        raise SpecError(f"model.dimensions: expected a number with name = '{STAND_IN}', found none")
    space = Space(
        weights_sha256=STAND_IN_ALGORITHM,
        tokenizer_sha256="",
        modules="",
        pooling="",
        prompt=spec.prompt or "",
        max_tokens=spec.max_tokens or STAND_IN_MAX_TOKENS,
        normalize=spec.normalize is not False,
        dimension=spec.dimensions,
        dtype=spec.dtype,
    )
    return Model(spec=spec, folder=None, revision=None, space=space, query_prompt=spec.query_prompt or "", tokenizer_file=None)
