"""``msdsim calibrate``: fit constants of a chip file to measurements of one's own."""

from __future__ import annotations

import click

from msdsim.cli.options import engine_options, hardware_options, options, report_options


@click.command("calibrate", short_help="Fit a chip's uncertain constants to your own measurements.")
@click.argument("file")
@options(hardware_options[0],
         click.option("--out", metavar="FILE.toml", required=True, help="The chip file to write; it extends the chip."),
         click.option("--constants", metavar="KEY,...", default="",
                      help="What to fit: dotted paths, or 'all' that a time can depend on; left out, those known to matter. "
                           "Only numbers of kind assumed or inferred are fitted."),
         click.option("--also", metavar="CHIP", multiple=True,
                      help="Use the rows of this chip too, with the same factors on its numbers; repeatable."),
         engine_options[:2], report_options[0], report_options[3])
def command(file: str, hw: str, out: str, constants: str, also: tuple[str, ...], engine: str | None, memory: str,
            json_to: str | None, quiet: bool) -> None:
    """Fit constants of a chip to the measurements in FILE, a TOML file of rows or a profiler's op_summary_*.csv.

    Least squares on the logarithms of predicted over measured times; the error is also given for rows that the fit has not
    seen, each source left out in turn.
    """
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.calibrate import base_of, calibrate, chip_file
    from msdsim.explore.validate import measured_rows
    from msdsim.hardware import load_hw
    from msdsim.report.files import require_writable, write_text
    from msdsim.report.validation import print_calibration

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    require_writable(out, "--out", (".toml",))
    hardware = load_hw(hw)
    rows = [row for row in measured_rows(file, hardware) if not row.long]
    names = [name.strip() for name in constants.split(",") if name.strip()]
    with working(f"calibrating {hardware.name}", quiet, engine):
        found = calibrate(rows, hardware, names, others=also, file=file, engine=engine or "fast", memory=memory)
    write_text(out, chip_file(found, base_of(hw, out)))
    outputs.print(lambda console: print_calibration(console, found, out))
    outputs.write_json(found.to_json())
