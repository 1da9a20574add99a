"""``msdsim import``: a published model into a workload file."""

from __future__ import annotations

import click


@click.command("import", short_help="A model's config.json or checkpoint into a workload file (decode or prefill).")
@click.argument("model")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in the step.")
@click.option("--tokens", "--prefill", "tokens", metavar="TOKENS", type=click.IntRange(min=1), default=1,
              help="New tokens of each sequence: more than 1 is a prefill; without it, one decode step.")
@click.option("--kv", metavar="TOKENS", type=click.IntRange(min=1), default=None,
              help="Tokens that attention reads, the new ones among them; without it the workload has no attention.")
@click.option("--tensor-parallel", "devices", metavar="N", type=click.IntRange(min=1), default=1,
              help="The share of one of N devices: heads, columns and experts' columns are spread, what cannot be is copied.")
@click.option("--expert-parallel", "expert_devices", metavar="N", type=click.IntRange(min=1), default=1,
              help="N devices share the routed experts, whole ones; each group of --tensor-parallel devices among them has a "
                   "batch of --batch sequences of its own, whose tokens go to the experts of all.")
@click.option("--name", default=None, help="The workload's name; that of the model's folder or file by default.")
@click.option("--out", "out", metavar="FILE.toml", default=None,
              help="Where to write it, over what is there; NAME-decode.toml or NAME-prefill.toml here by default.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(model: str, batch: int, tokens: int, kv: int | None, devices: int, expert_devices: int, name: str | None,
            out: str | None, quiet: bool) -> None:
    """Turn MODEL into a workload of its linear layers and, with --kv, its attention.

    MODEL is the config.json of a decoder-only model, its folder, a safetensors file or the index of several; where there are
    tensors, their shapes decide.  What was understood is printed: family, layers by kind, weights, KV
    cache, formats, and what is not simulated.  Simulate the workload with: msdsim run FILE.toml
    """
    from pathlib import Path

    from msdsim.explore.import_model import default_name, read_model, step_text, understood
    from msdsim.models.step import ModelStep
    from msdsim.report.files import require_writable, write_text

    step = ModelStep(batch, tokens, kv, devices, expert_devices)
    found = read_model(model)
    name = name or default_name(Path(model))
    file = out or f"{name}-{'decode' if tokens == 1 else 'prefill'}.toml"
    require_writable(file, "--out", (".toml",))
    text = step_text(found, name, step)
    if out is None:
        _keep(Path(file), text)
    write_text(file, text)
    if not quiet:
        for line in understood(found, step):
            click.echo(line)
        click.echo(f"wrote {file}; simulate it with: msdsim run {file}")


def _keep(file: object, text: str) -> None:
    """Refuse to write over another workload under a name that nobody gave."""
    from pathlib import Path

    from msdsim.errors import InputError

    assert isinstance(file, Path)
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise InputError(f"'{file}' is there already and holds something else; give --out {file} to write over it, or --name")
