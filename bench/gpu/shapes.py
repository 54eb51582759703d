"""The model shapes that are measured, and how much arithmetic a token is. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer's sizes. `kind` names the architecture: bert, or llama with attention both ways."""

    name: str
    title: str
    kind: str
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    positions: int

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    def flops_per_token(self, length: int) -> float:
        """Multiplications and additions of one token's forward in a text of `length` tokens, embeddings aside.

        Two per weight of the linear layers, and in each layer 4 x length x hidden for scores and weighted values
        (Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1; every token sees every other).
        """
        queries = 2 * self.hidden * self.hidden
        keys_values = 2 * self.hidden * self.key_value_heads * self.head_size
        feed_forward = (3 if self.kind == "llama" else 2) * self.hidden * self.intermediate
        linear = self.layers * (queries + keys_values + feed_forward)
        return 2 * linear + 4 * self.layers * length * self.hidden


SHAPES = (
    Shape("bert-base", "BERT-base", "bert", 768, 12, 12, 12, 3072, 30522, 512),
    Shape("bert-large", "BERT-large", "bert", 1024, 24, 16, 16, 4096, 30522, 512),
    Shape("llama-1b", "llama-nemotron-embed-1b", "llama", 2048, 16, 32, 8, 8192, 128256, 8192),
)

# Tokens/s on one H200 at 50 and at 512 tokens a text, from 40 % of its dense bf16 peak; published results of other
# servers on it reach 31 % (BERT-base, 512 tokens).
GOALS = {"bert-base": 2.1e6, "bert-large": 0.60e6, "llama-1b": 0.20e6}
GOAL_DEVICE = "H200"


def tiny(shape: Shape) -> Shape:
    """The same architecture small enough for a test."""
    return replace(
        shape, name=f"{shape.name}-tiny", title=f"{shape.title} (tiny)", hidden=64, layers=2, heads=4,
        key_value_heads=4 if shape.kind == "bert" else 2, intermediate=128,
        vocabulary=9000,
    )  # fmt: skip
