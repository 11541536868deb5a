"""What a flow is told. Prefect holds parameters against these types when a run is created, before it records any."""

from typing import Annotated

from pydantic import AfterValidator, Field

from pipelines.errors import SpecError
from pipelines.spec.declared import COLLECTION_NAME, ModelSpec
from pipelines.spec.places import check_store


def _store(uri: str) -> str:
    try:
        check_store("store", uri)
    except SpecError as error:
        raise ValueError(str(error)) from None
    return uri


def _harmless(model: ModelSpec) -> ModelSpec:
    if model.trust_remote_code:
        raise ValueError("expected a model without code of its own, found trust_remote_code: only the spec may allow that")
    return model


_PLACE = r"^(s3://[A-Za-z0-9][A-Za-z0-9._-]{2,254}(/[A-Za-z0-9!_.*'()=+@,:&~-]+)*/?|[^:?]+)$"
"""What the server can tell of a store without this code: above all, that it holds no credentials."""

CollectionName = Annotated[str, Field(pattern=COLLECTION_NAME, title="Collection", description="As the spec calls it.")]
ConfigFile = Annotated[str, Field(min_length=1, title="Spec", description="The spec's file, where the flow runs.")]
StoreUri = Annotated[
    str,
    AfterValidator(_store),
    Field(
        title="Store",
        description="A folder or s3:// URI without credentials, instead of the spec's.",
        json_schema_extra={"pattern": _PLACE},
    ),
]
CandidateModel = Annotated[
    ModelSpec,
    AfterValidator(_harmless),
    Field(
        title="Model",
        description="A further candidate. None: those of the spec.",
        json_schema_extra={"not": {"properties": {"trust_remote_code": {"const": True}}, "required": ["trust_remote_code"]}},
    ),
]
