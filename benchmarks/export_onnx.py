"""Write `model.onnx` beside a model's weights, for peers that take nothing else: python benchmarks/export_onnx.py MODEL_FOLDER."""

import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def main(folder: str) -> None:
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = dict(AutoTokenizer.from_pretrained(folder)(["a text", "another, longer text"], padding="longest", return_tensors="pt"))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    torch.onnx.export(
        model,
        kwargs=inputs,
        f=str(Path(folder) / "model.onnx"),
        input_names=list(inputs),
        output_names=["last_hidden_state"],
        dynamic_shapes=dict.fromkeys(inputs, axes),
        dynamo=True,
        external_data=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
