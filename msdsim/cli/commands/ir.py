"""``msdsim ir``: the kernel of a dataflow as text."""

from __future__ import annotations

import click

from msdsim.cli.options import dataflow_options, hardware_options, options


@click.command("ir", short_help="Print or verify the kernel of a dataflow.")
@click.argument("problem", required=False)
@options(
    hardware_options,
    dataflow_options,
    click.option("--ops", "list_ops", is_flag=True, help="Describe every operation of the kernel language instead."),
    click.option("--lines", is_flag=True, help="Number the lines, as explanations, traces and errors cite them."),
    click.option("--verify", "verify_only", is_flag=True, help="Verify the kernel and say so instead of printing it."),
)
def command(problem: str | None, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, list_ops: bool,
            lines: bool, verify_only: bool) -> None:
    """Print the kernel that a dataflow builds for PROBLEM on a chip, or the one in a .kir file; it passes the verifier.

    With --verify the order of accesses is checked too: two of one place, at least one a write, need an order by program, ring,
    signal or barrier, whatever their times are.

    Comments give the address of every buffer in UB, and what operations lose to conflicts in its banks.
    """
    if list_ops:
        from msdsim.ir.reference import operations_page

        click.echo(operations_page(), nl=False)
        return
    if problem is None:
        raise click.UsageError("give a PROBLEM or a .kir file, or --ops for the operations there are")
    from msdsim.cli.arguments import read_hardware, read_single_problem, read_tiling
    from msdsim.cli.simulation import refuse_for_kernel
    from msdsim.ir.annotate import annotated_kernel
    from msdsim.ir.declarations import notes
    from msdsim.ir.lets import plain
    from msdsim.ir.parser import read_kernel
    from msdsim.passes import run_passes
    from msdsim.runs import RunOptions, prepare, prepare_kernel

    hardware, options = read_hardware(hw, changes), RunOptions(tiling=read_tiling(tiling))
    if problem.strip().endswith(".kir"):
        written = read_kernel(problem.strip())
        refuse_for_kernel(problem, written)
        item = prepare_kernel(written, hardware, options)
    else:
        item = prepare(read_single_problem(problem, "ir"), hardware, dataflow, options)
    kernel, text = item.kernel, annotated_kernel(item.kernel, hardware.chip, item.build.placement)
    for note in notes(plain(kernel)):
        click.echo(f"note: {note}", err=True)
    if verify_only:
        order = run_passes(item.build, "order").order
        assert order is not None
        extent = "all accesses of one place are ordered" if order.complete else \
            f"the first {order.events:,} accesses and signals were followed, and those of one place are ordered"
        click.echo(f"ok: kernel '{kernel.name}', {len(text.splitlines())} lines, passes the verifier for '{hardware.name}'; "
                   f"{extent}")
    elif lines:
        click.echo("".join(f"{number:>4}  {line}\n" for number, line in enumerate(text.splitlines(), 1)), nl=False)
    else:
        click.echo(text, nl=False)
