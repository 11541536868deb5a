"""Linear layers made ready for the matrix products of a device, in bfloat16 where that is wanted. Changes no shape.

The residual stream, the norms and the pooling stay in float32: only products take and give bfloat16, as under torch.autocast.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation


class PrepackedLinear(nn.Module):
    """nn.Linear with its weights as oneDNN lays them out, optionally with the exact gelu applied before the result leaves the cache."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: bool) -> None:
        super().__init__()
        # named as in nn.Linear: some architectures read the dtype of it
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype))
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype, copy=True)
        self._activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(states.to(self.weight.dtype), self.weight, self.bias, *self._activation)
        return result


def prepack(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace every nn.Linear of a model on a processor, in place; its own weights are freed."""
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return lower(model, dtype)
    for parent in list(model.modules()):
        gelu = _is_linear_then_gelu(parent)
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:  # a subclass may compute something else
                setattr(parent, name, PrepackedLinear(child, dtype, gelu))
            elif gelu:
                setattr(parent, name, nn.Identity())
    return None


def lower(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of every nn.Linear: torch.autocast would cast them anew in every pass."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.to(dtype)


def _is_linear_then_gelu(module: nn.Module) -> bool:
    """Whether this is what BERT and its relatives call the intermediate part of a layer, with the exact gelu."""
    parts: dict[str, Any] = dict(module.named_children())
    if list(parts) != ["dense", "intermediate_act_fn"]:
        return False
    activation = parts["intermediate_act_fn"]
    return type(parts["dense"]) is nn.Linear and type(activation) is GELUActivation and activation.act is nn.functional.gelu
