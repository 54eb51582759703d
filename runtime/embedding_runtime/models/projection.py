"""What follows the pooling: Dense, LayerNorm and Normalize modules in float32."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.modules import Dense, LayerNorm, Step
from embedding_runtime.models.weights import find_weights

_ACTIVATIONS = (
    "Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "Softplus", "Mish", "Hardtanh",
)  # fmt: skip


class _Unit(torch.nn.Module):  # type: ignore[misc]
    def forward(self, vectors: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vectors, dim=1)


class _Dense(torch.nn.Module):  # type: ignore[misc]
    """activation(W x + b), plus x or R x when there is a residual. The names are those of the stored weights."""

    def __init__(self, layer: Dense) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        self.activation = _activation(layer)
        self.adds_input = layer.residual
        if layer.residual and layer.in_features != layer.out_features:
            self.residual = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.activation(self.linear(vectors))
        if not self.adds_input:
            return out
        return out + (self.residual(vectors) if hasattr(self, "residual") else vectors)


def load_projection(steps: Sequence[Step], device: torch.device) -> torch.nn.Sequential:
    """The modules in order. Raises DirectoryError when weights or activations cannot be used."""
    modules: list[torch.nn.Module] = []
    for step in steps:
        match step:
            case Dense():
                modules.append(_fill(_Dense(step), step.path, ""))
            case LayerNorm():
                modules.append(_fill(torch.nn.LayerNorm(step.dimension), step.path, "norm."))
            case _:
                modules.append(_Unit())
    return torch.nn.Sequential(*modules).requires_grad_(False).eval().to(device)


def output_size(steps: Sequence[Step], pooled: int) -> int:
    """The size of the vectors after all steps. Raises DirectoryError when a step does not fit the one before."""
    for step in steps:
        expected = step.in_features if isinstance(step, Dense) else getattr(step, "dimension", pooled)
        if expected != pooled:
            raise DirectoryError(f"a module expects vectors of {expected} numbers but gets {pooled}")
        pooled = step.out_features if isinstance(step, Dense) else pooled
    return pooled


def _fill(module: torch.nn.Module, directory: Path, prefix: str) -> torch.nn.Module:
    files = find_weights(directory)
    path = files.paths[0]
    try:
        state = load_file(path) if files.is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict({key.removeprefix(prefix): value.float() for key, value in state.items()})
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise DirectoryError(f"{directory.name}/{path.name} cannot be used: {' '.join(str(error).split())}") from error
    return module


def _activation(layer: Dense) -> torch.nn.Module:
    if layer.activation not in _ACTIVATIONS:
        raise DirectoryError(f"{layer.path.name}/config.json: activation {layer.activation!r} is not supported")
    activation: torch.nn.Module = getattr(torch.nn, layer.activation)()
    return activation
