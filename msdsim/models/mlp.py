"""MLPs and mixtures of experts, as matrices."""

from __future__ import annotations

from msdsim.models.config import Config
from msdsim.models.parts import Linear, Mlp, ModuleColumns, RoutedExperts, linear

#: Activations of MLPs without a gate, as configs name them.
_UNGATED_ACTIVATIONS = ("relu2", "gelu_new", "xielu")
#: Families with a gate and such an activation.
_GATED_ANYWAY = ("bitnet", "minicpm")


def two_or_three(prefix: str, hidden: int, inner: int, gated: bool, module: str) -> tuple[Linear, ...]:
    """The matrices of one MLP: gate and up in one, then down; without a gate, up and down."""
    up = ModuleColumns(f"{module}up_proj", inner, inner)
    parts = (ModuleColumns(f"{module}gate_proj", inner, inner), up) if gated else (up,)
    return (
        Linear(f"{prefix}gate_up_proj" if gated else f"{prefix}up_proj", hidden, parts),
        linear(f"{prefix}down_proj", inner, hidden, f"{module}down_proj", k_units=inner),
    )


def dense(hidden: int, inner: int, *, gated: bool = True, prefix: str = "", module: str = "mlp.") -> Mlp:
    """A plain MLP."""
    return Mlp(two_or_three(prefix, hidden, inner, gated, module))


def mixture(
    hidden: int,
    count: int,
    chosen: int,
    inner: int,
    *,
    gated: bool = True,
    shared: int = 0,
    shared_gate: bool = False,
    shared_gated: bool = True,
    routes: int | None = None,
    latent: int | None = None,
    module: str = "mlp.",
    router: str = "gate",
) -> Mlp:
    """A mixture of experts.

    ``shared``: width of the shared experts together; ``shared_gate``: they have a gate of one column.  ``routes``: columns of
    the router, where they are not one for each expert.  ``latent``: the routed experts work on a projection of the hidden
    state to so many channels.
    """
    parts = [ModuleColumns(f"{module}{router}", routes or count)]
    if shared and shared_gate:
        parts.append(ModuleColumns(f"{module}shared_expert_gate", 1))
    if latent:
        parts.append(ModuleColumns(f"{module}fc1_latent_proj", latent))
    found = [Linear("moe_router", hidden, tuple(parts))]
    if shared:
        found += two_or_three("shared_", hidden, shared, shared_gated, f"{module}shared_experts.")
    experts = RoutedExperts(count, chosen, two_or_three("expert_", latent or hidden, inner, gated, f"{module}experts.0."))
    after = (linear("moe_latent_out_proj", latent, hidden, f"{module}fc2_latent_proj"),) if latent else ()
    return Mlp(tuple(found), experts, after)


def expert_numbers(c: Config) -> tuple[int, int]:
    """How many routed experts there are and how many a token passes."""
    count, chosen = c.size("num_experts"), c.count("num_experts_per_tok", 0)
    check_experts(c, count, chosen)
    return count, chosen


def check_experts(c: Config, count: int, chosen: int) -> None:
    """Every token passes at least one expert, and not more than there are."""
    if not c.has("num_experts_per_tok"):
        raise c.refuse(f"has {count} experts ({c.key('num_experts')}) and no num_experts_per_tok; give how many a token passes")
    if chosen < 1:
        raise c.refuse(f"{c.key('num_experts_per_tok')} = {chosen}: no token reaches an expert; give at least 1")
    if chosen > count:
        raise c.refuse(f"{c.key('num_experts_per_tok')} = {chosen} is above the {count} experts ({c.key('num_experts')})")


def expert_layers(c: Config, layers: int) -> list[bool]:
    """Which layers are mixtures, by whichever of the usual keys the config has; all of them without one.

    Lists decide over counts; counts that say otherwise than a list are refused.
    """
    counted = _counted(c, layers)
    listed = _listed(c, layers)
    if listed is None:
        return counted
    if c.given("first_k_dense_replace") and any(listed[: c.count("first_k_dense_replace")]):
        raise c.refuse(
            f"{c.key('first_k_dense_replace')} = {c.count('first_k_dense_replace')} dense layers, but the list of "
            f"MLP kinds has a mixture among them; leave only the right one"
        )
    return listed


def _counted(c: Config, layers: int) -> list[bool]:
    first = c.count("first_k_dense_replace")
    if first > layers:
        raise c.refuse(
            f"{c.key('first_k_dense_replace')} = {first} dense layers are more than the {layers} layers of the model"
        )
    step = c.get("moe_layer_freq")
    step = step if isinstance(step, list | tuple) else c.count("moe_layer_freq", 1)
    every = 1 if isinstance(step, list | tuple) else step
    if every < 1:
        raise c.refuse("moe_layer_freq = 0: no layer would be a mixture; give at least 1")
    return [layer >= first and layer % every == 0 for layer in range(layers)]


def _listed(c: Config, layers: int) -> list[bool] | None:
    kinds = c.items("mlp_layer_types", layers)
    if kinds is not None:
        known = {"dense": False, "mlp": False, "sparse": True, "moe": True, "hash_moe": True}
        unknown = next((kind for kind in kinds if not isinstance(kind, str) or kind not in known), None)
        if unknown is not None:
            raise c.refuse(f"mlp_layer_types has {unknown!r}; known are {', '.join(known)}")
        return [known[kind] for kind in kinds]
    if isinstance(c.get("moe_layer_freq"), list | tuple):
        flags = c.items("moe_layer_freq", layers) or []
        if any(flag not in (0, 1) for flag in flags):
            raise c.refuse("moe_layer_freq is a list of other values than 0 and 1")
        return [bool(flag) for flag in flags]
    return None


def stepped_layers(c: Config, layers: int) -> list[bool]:
    """Mixtures by ``decoder_sparse_step`` and ``mlp_only_layers``, as the Qwen families have them."""
    step = c.count("decoder_sparse_step", 1)
    plain = c.layer_indices("mlp_only_layers", layers) or set()
    return [layer not in plain and step > 0 and (layer + 1) % step == 0 for layer in range(layers)]


def is_gated(c: Config, default: bool = True) -> bool:
    """Whether MLPs have a gate: by the family, whose activation must not say otherwise."""
    activation = c.get("hidden_act")
    if default and c.family not in _GATED_ANYWAY and isinstance(activation, str) and activation in _UNGATED_ACTIVATIONS:
        raise c.refuse(
            f"{c.key('hidden_act')} = {activation!r} belongs to an MLP without a gate, and family '{c.family}' has a "
            f"gate; the MLP's matrices are not certain"
        )
    return default
