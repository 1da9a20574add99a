"""The matrices of a checkpoint by the layer they belong to, told by the names of their modules and their shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from msdsim.errors import InputError
from msdsim.models.config import Config
from msdsim.models.stored import Matrix

#: A module of a numbered layer: what its name has before the number, the number, and what comes after it.
LAYER = re.compile(r"(?:(.*)\.)?(?:layers|h|blocks|layer|block)\.(\d+)\.(.+)")
_ONE_EXPERT = re.compile(r"(.*experts)\.(\d+)\.(.+)")
_OTHER_PARTS = re.compile(
    r"vision|visual|audio|image|vit\.|encoder\.|projector|connector|resampler|talker|code2wav|token2wav|mtp|"
    r"merger|aligner|speech|perceiver|qformer|patch_embed",
    re.IGNORECASE,
)
_EMBEDDING = re.compile(r"embed|wte|wpe|word_emb|tok_emb|position|\.w$|rotary", re.IGNORECASE)
_HEAD = re.compile(r"(.*\.)?(lm_head|embed_out|output|output_layer|output_projection|head|decoder|score)")
_NO_MATMUL = re.compile(
    r"conv1d|conv_\w+|sconv|spatial_conv|(^|\.)conv(\.conv)?$|A_log|norm|(^|\.)D$|time_mix|bias|position|e_score|sink|attn_hc|ffn_hc|"
    r"hc_|mhc_module|altup\.(correction|prediction)|static_weight|compressor\.ape|dt_bias|maa_|token_shift"
)


@dataclass
class LayerParts:
    """Matrices of one layer by module, and its experts: shapes by module and how many."""

    plain: dict[str, Matrix] = field(default_factory=dict)
    experts: dict[str, tuple[Matrix, int]] = field(default_factory=dict)


def untold_layers(unknown: Sequence[str]) -> list[str]:
    """Those of a language model's layers among tensors that cannot be told."""
    found = [(name, LAYER.fullmatch(name)) for name in unknown]
    return [name for name, match in found if match and not _OTHER_PARTS.search(match.group(1) or "")]


def of_layers(
    found: Sequence[Matrix], c: Config, source: str
) -> tuple[list[LayerParts], Matrix | None, Matrix | None, list[str]]:
    """Matrices by layer of the language model, its head, its embedding, and the modules left aside."""
    in_layers, head, embedding, aside = _placed(found)
    if not in_layers:
        raise InputError(
            f"'{source}' has no tensors of layers (names with .layers.N., .h.N. or .blocks.N.); a decoder has some"
        )
    prefix = Counter(item.prefix for item in in_layers).most_common(1)[0][0]
    aside += [item.matrix.module for item in in_layers if item.prefix != prefix]
    own = [item for item in in_layers if item.prefix == prefix]
    layers = [LayerParts() for _ in _numbers(own, c, source)]
    for item in own:
        dimensions = len(item.matrix.shape)
        fits = dimensions == 2 or (dimensions == 3 and re.search(r"expert|mlp|moe", item.rest) is not None)
        if item.number >= len(layers) or not fits or _NO_MATMUL.search(item.rest):
            aside.append(item.matrix.module)
        else:
            _put(layers[item.number], item.rest, item.matrix)
    _check_last(layers, source)
    return layers, head, embedding, aside


class _InLayer(NamedTuple):
    """A matrix of a numbered layer: what its module's name has before the number, and after it."""

    prefix: str
    number: int
    rest: str
    matrix: Matrix


def _placed(found: Sequence[Matrix]) -> tuple[list[_InLayer], Matrix | None, Matrix | None, list[str]]:
    """Matrices of layers, the head, the larger embedding, and the modules of other parts of the model."""
    in_layers: list[_InLayer] = []
    head = embedding = None
    aside: list[str] = []
    for matrix in found:
        match = LAYER.fullmatch(matrix.module)
        if match and not _OTHER_PARTS.search(match.group(1) or ""):
            in_layers.append(_InLayer(match.group(1) or "", int(match.group(2)), match.group(3), matrix))
        elif _OTHER_PARTS.search(matrix.module) or len(matrix.shape) != 2:
            aside.append(matrix.module)
        elif _HEAD.fullmatch(matrix.module):
            head = matrix
        elif _EMBEDDING.search(matrix.module):
            embedding = embedding if embedding is not None and embedding.shape[0] >= matrix.shape[0] else matrix
        else:
            aside.append(matrix.module)
    return in_layers, head, embedding, aside


def _numbers(own: Sequence[_InLayer], c: Config, source: str) -> list[int]:
    """Numbers of the decoder's layers, without those that predict further tokens; InputError where one is missing."""
    predicting = {item.number for item in own if re.search(r"eh_proj|shared_head|enorm", item.rest)}
    limit = c.size("num_hidden_layers") if c.given("num_hidden_layers") else None
    numbers = sorted({item.number for item in own} - predicting)
    numbers = [number for number in numbers if limit is None or number < limit]
    if not numbers:
        raise InputError(f"'{source}' has no tensors of a decoder's layers below num_hidden_layers = {limit}")
    missing = next((number for number in range(limit or len(numbers)) if number not in set(numbers)), None)
    if missing is not None:
        raise InputError(
            f"'{source}' has no tensors of layer {missing}, but of {len(numbers)} others up to layer {numbers[-1]}"
            f"{f' of {limit}' if limit else ''}; give all files of the model, by their folder or index"
        )
    return numbers


def _check_last(layers: Sequence[LayerParts], source: str) -> None:
    """InputError where the last layer is like another one, but for modules that it lacks: a file ended there."""
    last = {*layers[-1].plain, *layers[-1].experts}
    others = [{*parts.plain, *parts.experts} for parts in layers[:-1]]
    more = next((names for names in others if last < names), None)
    if more is not None and last not in others:
        raise InputError(
            f"'{source}' has no '{min(more - last)}' in its last layer, {len(layers) - 1}, but in others; give all files of "
            f"the model, by their folder or index"
        )


def _put(parts: LayerParts, rest: str, matrix: Matrix) -> None:
    one = _ONE_EXPERT.fullmatch(rest)
    if one and "shared" not in one.group(1):
        module = f"{one.group(1)}.{one.group(3)}"
        first, count = parts.experts.get(module, (matrix, 0))
        if first.shape != matrix.shape:
            raise InputError(
                f"experts of '{matrix.module}' have shapes {list(first.shape)} and {list(matrix.shape)}; equal ones "
                f"are understood"
            )
        parts.experts[module] = (first, count + 1)
    elif len(matrix.shape) == 3:
        parts.experts[rest] = (replace(matrix, shape=matrix.shape[1:]), matrix.shape[0])
    else:
        parts.plain[rest] = matrix
