"""``msdsim import``: a model's config.json into a workload file."""

from __future__ import annotations

import click


@click.command("import", short_help="A model's config.json into a workload file (decode or prefill).")
@click.argument("config")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in the step.")
@click.option("--prefill", "tokens", metavar="TOKENS", type=click.IntRange(min=1), default=1,
              help="A prefill of so many tokens a sequence; without it, one decode step.")
@click.option("--kv", metavar="TOKENS", type=click.IntRange(min=1), default=None,
              help="Tokens that attention reads, the new ones among them; without it the workload has no attention.")
@click.option("--name", default=None, help="The workload's name; the name of the config's folder by default.")
@click.option("--out", "out", metavar="FILE.toml", default=None,
              help="Where to write it; NAME-decode.toml or NAME-prefill.toml here by default.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def command(config: str, batch: int, tokens: int, kv: int | None, name: str | None, out: str | None, quiet: bool) -> None:
    """Turn CONFIG, the config.json of a decoder-only model, into a workload of its linear layers and, with --kv, its
    attention.

    Simulate it with: msdsim run FILE.toml
    """
    from pathlib import Path

    from msdsim.explore.import_model import read_config, workload_text
    from msdsim.report.files import require_writable, write_text

    values = read_config(config)
    name = name or Path(config).resolve().parent.name
    file = out or f"{name}-{'decode' if tokens == 1 else 'prefill'}.toml"
    require_writable(file, "--out", (".toml",))
    write_text(file, workload_text(values, Path(config).name, name, batch, tokens, kv))
    if not quiet:
        click.echo(f"wrote {file}; simulate it with: msdsim run {file}")
