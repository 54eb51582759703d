"""A model that sees, computed: tiles through the vision tower, among the tokens of their prompts through the language
model. The composition is that of NVIDIA's `LlamaNemotronVLModel`, of stock transformers classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedding_runtime.models.architecture import Architecture
from embedding_runtime.models.attention import pack
from embedding_runtime.models.vl_config import VisionLanguage


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids, and where among them those of an image stand: from `image_begins` on, as many as its tiles give."""

    ids: NDArray[np.int32]
    tiles: NDArray[np.uint8] | None = None
    image_begins: int = 0


@dataclass(frozen=True, slots=True)
class VisionLanguageModel:
    """The three parts and how they fit together."""

    vision: torch.nn.Module
    projector: torch.nn.Sequential
    language: torch.nn.Module
    architecture: Architecture
    settings: VisionLanguage
    dtype: torch.dtype
    device: torch.device

    @property
    def tiles_at_once(self) -> int:
        """Tiles that go through the vision tower in one call: what keeps a device busy without taking its memory."""
        return 32 if self.device.type == "cuda" else 4

    def see(self, tiles: NDArray[np.uint8]) -> Tensor:
        """Tiles [n, 3, side, side] -> tokens [n * tile_tokens, size], in the language model's space."""
        parts = [
            self._see(torch.from_numpy(tiles[begin : begin + self.tiles_at_once]).to(self.device))
            for begin in range(0, len(tiles), self.tiles_at_once)
        ]
        return torch.cat(parts)

    def forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Hidden states of all tokens of all sequences, end to end [tokens, size].

        Raises ValueError, before anything is computed, when the places for an image's tokens in its sequence are not as
        many as its tiles give: its neighbours' would be overwritten.
        """
        for sequence in sequences:
            self._check_places(sequence)
        lengths = [len(sequence.ids) for sequence in sequences]
        starts = np.cumsum([0, *lengths[:-1]])
        ids = torch.from_numpy(np.concatenate([sequence.ids for sequence in sequences]).astype(np.int64))
        states: Tensor = self.language.get_input_embeddings()(ids.to(self.device))
        seen = [
            (sequence, start) for sequence, start in zip(sequences, starts, strict=True) if sequence.tiles is not None
        ]
        if seen:
            tiles = np.concatenate([sequence.tiles for sequence, _ in seen if sequence.tiles is not None])
            places = np.concatenate([
                np.arange(len(sequence.tiles) * self.settings.tile_tokens) + start + sequence.image_begins
                for sequence, start in seen
                if sequence.tiles is not None
            ])  # fmt: skip
            states[torch.from_numpy(places).to(self.device)] = self.see(tiles)
        return self._read(states, lengths)

    def _check_places(self, sequence: TokenSequence) -> None:
        given = 0 if sequence.tiles is None else len(sequence.tiles) * self.settings.tile_tokens
        begin = sequence.image_begins
        is_place = sequence.ids == self.settings.image_token
        if given != int(is_place.sum()) or not is_place[begin : begin + given].all():
            raise ValueError(f"{given} tokens of an image do not fit {int(is_place.sum())} places for them")

    def _see(self, tiles: Tensor) -> Tensor:
        mean, deviation = (
            255 * torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (self.settings.mean, self.settings.deviation)
        )
        # The published processor hands out bfloat16, whatever the model computes in.
        pixels = ((tiles.float() - mean) / deviation).to(torch.bfloat16).to(self.dtype)
        layer = self.settings.select_layer
        if layer == -1:
            patches = self.vision(pixel_values=pixels).last_hidden_state
        else:
            patches = self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]
        tokens: Tensor = self.projector(gather_patches(patches, self.settings.downsample))
        return tokens.flatten(0, 1)

    def _read(self, states: Tensor, lengths: Sequence[int]) -> Tensor:
        positions = np.concatenate([np.arange(length) for length in lengths])
        packed = pack(lengths, self.device, causal=self.architecture.is_causal)
        hidden: Tensor = self.language(
            inputs_embeds=states[None], position_ids=torch.from_numpy(positions).to(self.device)[None], packed=packed
        ).last_hidden_state
        return hidden[0]


def gather_patches(patches: Tensor, block: int) -> Tensor:
    """Space to depth: [n, side * side, size] -> [n, (side / block)², block² * size].

    The patches of a block lie row by row in the long vectors; blocks are in row order too. This is what "pixel shuffle"
    of version 2 gives.
    """
    side = round(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (side // block, block, side // block, block))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3, 5).flatten(1, 2)
