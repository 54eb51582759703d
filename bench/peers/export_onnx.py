"""Writes the ONNX file that ONNX Runtime servers need and the model's package lacks.

    python export_onnx.py MODEL_DIRECTORY FILE

Run in the environment of infinity-emb: transformers' BERT with eager attention through torch's TorchScript exporter,
what Optimum's exporter does for that version of transformers. infinity optimises the graph further when it starts.
"""

from __future__ import annotations

import sys
import warnings

import torch
from transformers import AutoModel

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUT = "last_hidden_state"
_AXES = {0: "batch_size", 1: "sequence_length"}
_OPSET = 17


class LastHiddenState(torch.nn.Module):  # type: ignore[misc]
    """The backbone with plain tensors in and out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """[texts, tokens] three times to [texts, tokens, hidden]."""
        answer = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        state: torch.Tensor = answer.last_hidden_state
        return state


def main() -> None:
    """Export."""
    directory, path = sys.argv[1:]
    model = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
    ids = torch.randint(1000, 2000, (2, 9))
    warnings.simplefilter("ignore")
    torch.onnx.export(
        LastHiddenState(model),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        path,
        input_names=list(_INPUTS),
        output_names=[_OUTPUT],
        dynamic_axes=dict.fromkeys((*_INPUTS, _OUTPUT), _AXES),
        opset_version=_OPSET,
        dynamo=False,
    )


if __name__ == "__main__":
    main()
