"""What a folder says about the model in it. Reads JSON and hashes bytes; loads nothing.

The folder has the layout of sentence-transformers (`modules.json`, and a folder a module) or of transformers alone, to which
sentence-transformers adds pooling. Weights are safetensors only: a pickle can run code when it is read.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelError
from pipelines.fingerprint import fingerprint
from pipelines.spaces.model_files import check_inside, check_links, code_elsewhere, code_in, count_tensors, read_json, read_object
from pipelines.spaces.model_weights import hash_files, sha256_of, weight_files


@dataclass(frozen=True, slots=True)
class Contents:
    """The facts of a model, before a spec chooses among what it can do."""

    weights_sha256: str
    """SHA-256 of the safetensors file; of several, of the sorted lines "name sha256"."""
    tokenizer_sha256: str
    """SHA-256 of `tokenizer.json` and of the settings beside it that change tokens."""
    modules: str
    """Fingerprint of the config of the model and of each module, and of custom code where it is allowed."""
    pooling: str
    """How token vectors become one: "mean", "cls", "max", ..., several joined by "+"."""
    normalize: bool
    """Whether the last module scales to unit length."""
    dimension: int
    """Numbers of a whole vector."""
    truncated: int | None
    """How many of them the model's authors keep, where they say so."""
    max_tokens: int | None
    """The longest input it was made for, where it says so."""
    most_tokens: int | None
    """The longest input it can read, where it says so."""
    document_prompt: str
    """What its authors put before a document."""
    query_prompt: str
    """What its authors put before a query."""
    other_prompts: dict[str, str]
    """What its authors put before documents by its name, where no library takes that by itself."""
    tokenizer_file: Path
    """Its `tokenizer.json`."""
    vocabulary: int | None
    """Token ids that it knows, where it says so."""


@dataclass(frozen=True, slots=True)
class _Module:
    """One module of the stack, in order."""

    type: str
    folder: Path
    config: dict[str, Any]

    @property
    def kind(self) -> str:
        """The class name: sentence-transformers moved its classes, and old and new paths mean the same."""
        return self.type.rpartition(".")[2]


_KINDS = {"Transformer", "Pooling", "WeightedLayerPooling", "WordWeights", "Dense", "LayerNorm", "CNN", "LSTM", "Dropout", "Normalize"}
"""What a text encoder is made of. Others load files of their own, some of them pickles."""
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
LARGEST_NUMBER = 100_000_000
"""Of any number that decides a size."""
_VOLATILE = {"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Keys of `config.json` that change no vector: who wrote it, how it was stored, how decoding would cache."""
_TOKENIZER_SETTINGS = (
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_prefix_space",
    "add_bos_token",
    "add_eos_token",
    "padding_side",
    "truncation_side",
)
_TRANSFORMER_CONFIGS = [
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_OFFSET_POSITIONS = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "mpnet",
    "longformer",
    "xmod",
    "data2vec-text",
    "ibert",
    "luke",
}
"""Model types that count positions from the padding id + 1, so that an input is shorter than their table of positions."""
_FOR_DOCUMENTS = re.compile(r"(?:^|[^a-z])(?:passage|document|doc|corpus)$", re.IGNORECASE)
"""Names of prompts that are meant for what is searched: "passage", "retrieval.passage", "search_document"."""
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How pooling was written before `pooling_mode`; several are concatenated in this order."""


def read_folder(root: Path, trust_remote_code: bool = False) -> Contents:
    """Read what decides the vectors of the model in `root`.

    Raises ModelError if it is not a whole text encoder, has no safetensors, or brings code although `trust_remote_code` is off.
    """
    try:
        contents = _read(root, trust_remote_code)
    except (AttributeError, TypeError, LookupError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{root}: expected the configs of a text encoder, found a value of another kind in one of them ({error})"
        ) from None
    _check_values(root, contents)
    return contents


def _check_values(root: Path, contents: Contents) -> None:
    numbers = {name: getattr(contents, name) for name in ("dimension", "truncated", "max_tokens", "most_tokens", "vocabulary")}
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or not 0 < number < LARGEST_NUMBER):
            raise ModelError(f"{root}: expected a {name} from 1 to {LARGEST_NUMBER:,} in its configs, found {str(number)[:40]}")
    if not isinstance(contents.document_prompt, str) or not isinstance(contents.query_prompt, str):
        raise ModelError(f"{root / 'config_sentence_transformers.json'}: expected prompts of text, found another kind")


def _read(root: Path, trust_remote_code: bool) -> Contents:
    check_links(root)
    modules = _modules(root)
    base = modules[0].folder
    config, tokenizer = read_object(base / "config.json"), read_object(base / "tokenizer_config.json")
    settings = read_object(root / "config_sentence_transformers.json")
    code = _code_references(root, modules)
    if code and not trust_remote_code:
        raise ModelError(
            f"{root}: expected a model without code of its own, found {code[0]}: read that code, then set trust_remote_code = true"
        )
    _refuse_code_elsewhere(root, modules)
    _refuse_unsupported(root, modules, settings)
    # what a final Normalize does is said by `normalize`: with and without it the rest of the stack is the same
    stack = modules[:-1] if modules[-1].kind == "Normalize" else modules
    prompts = settings.get("prompts") or {}
    longest = _longest_inputs(config, modules[0].config, tokenizer)
    weights = weight_files(base, [module.folder for module in stack[1:]])
    _check_layers(base, config, weights)
    return Contents(
        weights_sha256=hash_files(root, weights),
        tokenizer_sha256=_hash_tokenizer(base, tokenizer),
        modules=_fingerprint_modules(root, config, stack, code),
        pooling="+".join(mode for module in stack if module.kind == "Pooling" for mode in _pooling_modes(module.config)),
        normalize=stack is not modules,
        dimension=_dimension(root, config, stack),
        truncated=settings.get("truncate_dim"),
        max_tokens=longest[0],
        most_tokens=longest[1],
        # as encode_document and encode_query of sentence-transformers 6.2 choose: they pass over "passage" and default_prompt_name
        document_prompt=prompts.get("document") or "",
        query_prompt=prompts.get("query") or "",
        other_prompts=_other_prompts(prompts, settings.get("default_prompt_name")),
        tokenizer_file=base / "tokenizer.json",
        vocabulary=config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size"),
    )


def _other_prompts(prompts: dict[str, str], default: str | None) -> dict[str, str]:
    known = {"document", "query"}
    for_documents = {name: prompt for name, prompt in prompts.items() if name == default or _FOR_DOCUMENTS.search(name)}
    return {name: prompt for name, prompt in for_documents.items() if name not in known and prompt and isinstance(prompt, str)}


# The stack of modules


def _modules(root: Path) -> list[_Module]:
    listed = read_json(root / "modules.json")
    try:
        modules = [_module(root, entry["type"], entry["path"], first=place == 0) for place, entry in enumerate(listed)]
    except (KeyError, TypeError):
        raise ModelError(f"{root / 'modules.json'}: expected a list of modules with 'type' and 'path', found something else") from None
    base = modules[0].folder if modules else root
    if not (base / "config.json").is_file():
        raise ModelError(f"{base}: expected a model's config.json, found none: give the folder that holds the model")
    return modules or [_module(root, "sentence_transformers.models.Transformer", "", first=True), _default_pooling(root)]


def _module(root: Path, type_name: str, path: str, first: bool) -> _Module:
    check_inside(root, path)
    configs = (read_object(root / path / name) for name in (_TRANSFORMER_CONFIGS if first else ["config.json"]))
    return _Module(type_name, root / path, next(filter(None, configs), {}))


def _default_pooling(root: Path) -> _Module:
    """What SentenceTransformer adds to a plain transformer: mean pooling, or the last token of a causal one."""
    config = read_object(root / "config.json")
    causal = (config.get("architectures") or [""])[0].endswith("ForCausalLM") and config.get("is_causal", True)
    return _Module("sentence_transformers.models.Pooling", root / "1_Pooling", {"pooling_mode": "lasttoken" if causal else "mean"})


def _code_references(root: Path, modules: list[_Module]) -> list[str]:
    """What would make the loader run code that comes with the model."""
    custom = [module.type for module in modules if not module.type.startswith("sentence_transformers.")]
    # without leave the library takes another one, and the vectors are others
    custom += [name for module in modules if not (name := module.config.get("activation_function", "torch.")).startswith("torch.")]
    return [*custom, *(key for folder in sorted({root, *(module.folder for module in modules)}) for key in code_in(folder))]


def _refuse_code_elsewhere(root: Path, modules: list[_Module]) -> None:
    """Trusted or not: it may be another tomorrow, and the space would have the same name."""
    named = [module.type for module in modules if "--" in module.type]
    if found := [*named, *(name for folder in sorted({root, *(module.folder for module in modules)}) for name in code_elsewhere(folder))]:
        raise ModelError(
            f"{root}: expected the code of the model in its folder, found {found[0][:80]}: copy it there and name it in the config"
        )


def _refuse_unsupported(root: Path, modules: list[_Module], settings: dict[str, Any]) -> None:
    base = modules[0]
    family = settings.get("model_type", "SentenceTransformer")
    if family != "SentenceTransformer" or base.kind != "Transformer":
        raise ModelError(f"{root}: expected a text encoder that starts with a Transformer, found a {family} that starts with {base.kind}")
    if strange := [module.kind for module in modules if module.type.startswith("sentence_transformers.") and module.kind not in _KINDS]:
        raise ModelError(f"{root}: expected modules of {', '.join(sorted(_KINDS))}, found {strange[0]}")
    if (base.folder / "adapter_config.json").is_file():
        raise ModelError(f"{root}: expected whole weights, found an adapter for another model: merge it and save the result")
    if other := base.config.get("tokenizer_name_or_path"):
        raise ModelError(f"{root}: expected its own tokenizer, found a reference to {other!r}: save it with the model")


# Hashes


def _hash_tokenizer(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{folder}: expected tokenizer.json, found none: save the model with its fast tokenizer")
    settings = {key: config[key] for key in _TOKENIZER_SETTINGS if config.get(key) is not None}
    if config.get("split_special_tokens"):  # what is not so is said by some and left out by others
        settings["split_special_tokens"] = True
    # old and new versions of transformers name one class with and without "Fast"
    settings["tokenizer_class"] = str(config.get("tokenizer_class")).removesuffix("Fast")
    return hashlib.sha256(f"{sha256_of(file)} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()


def _fingerprint_modules(root: Path, config: dict[str, Any], stack: list[_Module], code: list[str]) -> str:
    architecture = {key: value for key, value in config.items() if key not in _VOLATILE}
    # the longest input has a field of its own in the space, whichever file it came from
    modules = [[module.kind, {key: value for key, value in module.config.items() if key != "max_seq_length"}] for module in stack]
    scripts = hash_files(root, root.rglob("*.py")) if code else ""
    return fingerprint({"config": architecture, "modules": modules, "code": scripts})


# Sizes


def _check_layers(folder: Path, config: dict[str, Any], weights: Iterable[Path]) -> None:
    """A loader makes the layers first, and looks for their weights then."""
    tensors = sum([count_tensors(file) for file in weights])
    layers = max((config[key] for key in _LAYERS if isinstance(config.get(key), int)), default=0)
    if layers > tensors:
        raise ModelError(f"{folder / 'config.json'}: expected layers that have weights, found {layers} layers and {tensors} tensors")


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return [mode] if isinstance(mode, str) else list(mode)
    return [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]


def _dimension(root: Path, config: dict[str, Any], stack: list[_Module]) -> int:
    """The length of the vectors that leave the stack."""
    dimension = next((config[key] for key in ("hidden_size", "d_model", "dim", "n_embd") if key in config), None)
    for module in stack:
        if module.kind == "Pooling":
            width = module.config.get("embedding_dimension") or module.config.get("word_embedding_dimension") or dimension
            dimension = width and width * len(_pooling_modes(module.config))
        elif module.kind == "Dense":
            dimension = module.config.get("out_features")
    if not isinstance(dimension, int):
        raise ModelError(f"{root}: expected the vectors' dimension in a config, found none: is it a model of embeddings?")
    return dimension


def _longest_inputs(config: dict[str, Any], transformer: dict[str, Any], tokenizer: dict[str, Any]) -> tuple[int | None, int | None]:
    """The longest input that the model was made for, and the longest that it can read; None where it does not say."""
    stated = transformer.get("max_seq_length") or tokenizer.get("model_max_length")
    positions = _positions(config)
    # tokenizers write "no limit" as 10^30
    made_for = min((limit for limit in (stated, positions) if limit and limit < 10**9), default=None)
    return made_for, positions or made_for


def _positions(config: dict[str, Any]) -> int | None:
    rows = config.get("max_position_embeddings")
    if not rows or rows < 0:  # xlnet writes -1: it has no table
        return None
    return int(rows) - (config.get("pad_token_id", 1) + 1 if config.get("model_type") in _OFFSET_POSITIONS else 0)
