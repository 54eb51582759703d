"""Dense modules behind the pooling."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import torch
from safetensors.torch import load_file

from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.layout import DenseLayer
from embedding_runtime.models.weights import find_weights

_ACTIVATIONS = (
    "Identity",
    "Tanh",
    "ReLU",
    "GELU",
    "SiLU",
    "Sigmoid",
    "LeakyReLU",
    "ELU",
    "Softplus",
    "Mish",
    "Hardtanh",
)


def load_projection(layers: Sequence[DenseLayer], device: torch.device) -> torch.nn.Sequential:
    """The Dense modules in float32, in order. Raises DirectoryError when weights or activations cannot be used."""
    modules: list[torch.nn.Module] = []
    for layer in layers:
        modules += [_linear(layer), _activation(layer)]
    return torch.nn.Sequential(*modules).requires_grad_(False).eval().to(device)


def _linear(layer: DenseLayer) -> torch.nn.Linear:
    files = find_weights(layer.path)
    path = files.paths[0]
    try:
        state = load_file(path) if files.is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise DirectoryError(f"{layer.path.name}/{path.name} cannot be read: {error}") from error
    linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
    try:
        linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise DirectoryError(f"{layer.path.name}: {' '.join(str(error).split())}") from error
    return linear


def _activation(layer: DenseLayer) -> torch.nn.Module:
    if layer.activation not in _ACTIVATIONS:
        raise DirectoryError(f"{layer.path.name}/config.json: activation {layer.activation!r} is not supported")
    activation: torch.nn.Module = getattr(torch.nn, layer.activation)()
    return activation
