"""What families with mixtures of experts share: which layers have one, how wide it is, attention over a cache beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msdsim.models.attention import head_sizes, softmax
from msdsim.models.config import Config
from msdsim.models.families_dense import Windows, inner_of
from msdsim.models.family import decoder, family
from msdsim.models.mlp import (
    dense,
    expert_layers,
    expert_numbers,
    is_gated,
    mixture,
    stepped_layers,
)
from msdsim.models.parts import Decoder, Layer, Mixer, Mlp
from msdsim.models.patterns import (
    all_windowed,
    late_windows,
    listed_windows,
    mixture_windows,
    no_windows,
    patterned,
)

Which = Callable[[Config, int], list[bool]]


def all_layers(c: Config, layers: int) -> list[bool]:
    """Every layer is a mixture."""
    return [True] * layers


def all_but_first(c: Config, layers: int) -> list[bool]:
    """The first layer has a plain MLP, all others a mixture."""
    return [layer > 0 for layer in range(layers)]


def routed_width(c: Config) -> int:
    """Width of one routed expert."""
    return c.size("moe_intermediate_size")


def plain_width(c: Config) -> int:
    """Width of one routed expert where a family calls it as that of a plain MLP."""
    return c.size("intermediate_size")


def counted_shared(c: Config) -> int:
    """Width of the shared experts: so many, each as wide as a routed one."""
    return c.count("n_shared_experts") * c.size("moe_intermediate_size")


def checked_shared(c: Config) -> int:
    """Like :func:`counted_shared`, where the width is published as well and must be as wide as a routed expert's."""
    if not c.flag("moe_router_enable_shared_expert", True) and c.count("n_shared_experts"):
        raise c.refuse("moe_router_enable_shared_expert = false beside shared experts: whether they are there is not certain")
    own = c.optional_size("moe_shared_expert_intermediate_size")
    if own is not None and own != c.size("moe_intermediate_size"):
        raise c.refuse(
            f"moe_shared_expert_intermediate_size = {own} is not moe_intermediate_size; the shared experts' width is not "
            f"certain"
        )
    return counted_shared(c)


def no_shared(c: Config) -> int:
    """No shared expert; a config that has some is refused as not understood."""
    return 0


def width_shared(c: Config) -> int:
    """Width of the shared expert, given as such."""
    return c.count("shared_expert_intermediate_size")


def shared_size(c: Config) -> int:
    """Width of the shared expert under its short name."""
    return c.count("shared_intermediate_size")


def moe_mlps(
    c: Config,
    layers: int,
    *,
    which: Which = expert_layers,
    width: Callable[[Config], int] = routed_width,
    shared: Callable[[Config], int] = counted_shared,
    shared_gate: bool = False,
    gated: bool = True,
    dense_inner: Callable[[Config], int] = inner_of,
    module: str = "mlp.",
    extra_routes: int = 0,
) -> list[Mlp]:
    """The MLP of each layer: a mixture where ``which`` says so, else a plain one of ``dense_inner``."""
    hidden = c.size("hidden_size")
    found: list[Mlp] = []
    flags = which(c, layers)
    mixed = plain = None
    for flag in flags:
        if flag and mixed is None:
            count, chosen = expert_numbers(c)
            mixed = mixture(
                hidden,
                count,
                chosen,
                width(c),
                gated=is_gated(c, gated),
                shared=shared(c),
                shared_gate=shared_gate,
                routes=count + extra_routes,
                module=module,
            )
        elif not flag and plain is None:
            plain = dense(
                hidden, dense_inner(c), gated=is_gated(c, gated), prefix="dense_" if any(flags) else "", module=module
            )
        one = mixed if flag else plain
        assert one is not None
        found.append(one)
    if plain is None:
        c.skip("intermediate_size", "ffn_hidden_size")
    return found


def softmax_mixers(c: Config, layers: int, see: Windows, gate: str = "") -> list[Mixer]:
    """Grouped-query attention in every layer."""
    hidden = c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    columns = {"": 0, "full": heads * head_dim, "head": heads}[gate]
    return [softmax(hidden, heads, kv_heads, head_dim, window=window, gate=columns) for window in see(c, layers)]


def zipped(mixers: Iterable[Mixer], mlps: Iterable[Mlp]) -> list[Layer]:
    """Layers of one mixer and one MLP."""
    return [Layer((mixer,), (mlp,)) for mixer, mlp in zip(mixers, mlps, strict=True)]


def moe(c: Config, *, see: Windows = no_windows, gate: str = "", **options: object) -> Decoder:
    """Grouped-query attention and, in some layers or all, a mixture of experts; options are those of :func:`moe_mlps`."""
    layers = c.size("num_hidden_layers")
    mlps = moe_mlps(c, layers, **options)  # type: ignore[arg-type]
    return decoder(c, zipped(softmax_mixers(c, layers, see, gate), mlps))


family("mixtral", "phimoe", which=all_layers, width=plain_width, shared=no_shared, see=all_windowed)(moe)
family("olmoe", "flex_olmo", which=all_layers, width=plain_width, shared=no_shared)(moe)
family("granitemoe", "granitemoeshared", which=all_layers, width=plain_width, shared=shared_size)(moe)
family("granitemoe_swa", which=all_layers, width=plain_width, shared=shared_size, see=patterned(4, full_at=0))(moe)
family("gpt_oss", which=all_layers, width=plain_width, shared=no_shared, see=patterned(2))(moe)
family("qwen2_moe", which=stepped_layers, shared=width_shared, shared_gate=True, see=mixture_windows)(moe)
family("qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text", which=stepped_layers, shared=no_shared, see=mixture_windows)(
    moe
)
family("glm4_moe", "glm4v_moe_text", "sarvam_moe", "solar_open", "hy_v3", "deepseek")(moe)
family("bailing_moe", "bailing_moe_v2", shared=checked_shared)(moe)
family("dots1", see=late_windows)(moe)
family("exaone_moe", see=patterned(4))(moe)
family("afmoe", see=patterned(4, key="global_attn_every_n_layers"), gate="full")(moe)
family("mellum", shared=no_shared, see=listed_windows)(moe)
family("PanguProMoE", which=all_layers, shared=width_shared)(moe)
