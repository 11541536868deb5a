"""Tiny models with random weights, made in a test."""

from pathlib import Path
from typing import Any

SENTENCE = "a tide rises where the old harbour keeps its bread and salt under seven slow lanterns of winter rain"
WORDS = SENTENCE.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = {word: place for place, word in enumerate([*SPECIAL, ":", "ask", *WORDS])}
CONFIG = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def save_transformer(folder: Path, config: Any, type_id: int = 0, **tokenizer: Any) -> Path:
    """A model of `config` with a tokenizer of whole words, all of segment `type_id`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(7)
    AutoModel.from_config(config).eval().save_pretrained(folder)
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single=f"[CLS]:{type_id} $A:{type_id} [SEP]:{type_id}", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, **names, **tokenizer).save_pretrained(folder)
    return folder


def save_stack(folder: Path, transformer: Path, *modules: Any, prompts: dict[str, str] | None = None) -> Path:
    """A sentence-transformers model: `modules` upon a transformer that reads 48 tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    stack = SentenceTransformer(modules=[Transformer(str(transformer), max_seq_length=48), *modules], device="cpu", prompts=prompts)
    stack.save(str(folder))
    return folder


def reference(folder: Path, **fields: Any) -> Any:
    """What a user would load."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **fields)
