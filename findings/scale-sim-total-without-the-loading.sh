#!/usr/bin/env bash
# SCALE-Sim's total of cycles, its stalls and its utilization do not depend on the memory where the matrices fit.
#
# Behaviour: "Total Cycles" begins when the first half of the operands is in the on-chip memory. What loading them takes
# stands in another column, "Total Cycles (incl. prefetch)". Where both operands fit, every byte is loaded before the clock of
# the first starts: a memory with a hundredth of the bandwidth gives the same total, no stalls and the same utilization,
# and a matmul that waits for memory most of the time looks like one that does not.
#
# A good guess: with the bandwidth given by the user (InterfaceBandwidth : USER) the total of cycles grows as it shrinks, and
# the difference shows as stalls.
#
# Seen, for 128 x 128 x 128 on a 32 x 32 array with 64 KiB memories: 3039 cycles, 0 stalls and 67% for 1, 10 and 100 words a
# cycle; with the loading 21061, 6316 and 4841.
#
# Versions: scalesim 3.0.0, numpy 2.1.3. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scalesim==3.0.0 numpy==2.1.3
cd "$folder"
cat > try.py <<'PY'
import contextlib
import csv
import io
from importlib.metadata import version
from pathlib import Path

from scalesim.scale_sim import scalesim

print("scalesim", version("scalesim"), "numpy", version("numpy"))
SECTIONS = {
    "general": {"run_name": "r"},
    "architecture_presets": {
        "ArrayHeight": 32, "ArrayWidth": 32, "IfmapSramSzkB": 64, "FilterSramSzkB": 64, "OfmapSramSzkB": 64, "IfmapOffset": 0,
        "FilterOffset": 10000000, "OfmapOffset": 20000000, "Dataflow": "os", "Bandwidth": 0, "ReadRequestBuffer": 32,
        "WriteRequestBuffer": 32},
    "layout": {
        "IfmapCustomLayout": False, "FilterCustomLayout": False, "IfmapSRAMBankBandwidth": 10, "IfmapSRAMBankNum": 10,
        "IfmapSRAMBankPort": 2, "FilterSRAMBankBandwidth": 10, "FilterSRAMBankNum": 10, "FilterSRAMBankPort": 2},
    "sparsity": {
        "SparsitySupport": "false", "SparseRep": "ellpack_block", "OptimizedMapping": "false", "BlockSize": 8,
        "RandomNumberGeneratorSeed": 40},
    "run_presets": {"InterfaceBandwidth": "USER", "UseRamulatorTrace": False},
}


def cycles(bandwidth):
    SECTIONS["architecture_presets"]["Bandwidth"] = bandwidth
    text = "".join(f"[{name}]\n" + "".join(f"{key} : {value}\n" for key, value in table.items()) for name, table in SECTIONS.items())
    Path("chip.cfg").write_text(text)
    Path("gemm.csv").write_text("Layer,M,N,K,\ng,128,128,128,\n")
    Path("layout.csv").write_text("Layer name, IFMAP Height Intraline Factor,\ng,1,\n")
    Path("out").mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        scalesim(save_disk_space=True, verbose=False, config="chip.cfg", topology="gemm.csv", layout="layout.csv",
                 input_type_gemm=True).run_scale(top_path="out")
    with open("out/r/COMPUTE_REPORT.csv", newline="") as file:
        row = {key.strip(): value for key, value in next(csv.DictReader(file, skipinitialspace=True)).items() if key}
    return (float(row["Total Cycles"]), float(row["Stall Cycles"]), float(row["Overall Util %"]),
            float(row["Total Cycles (incl. prefetch)"]))


found = {bandwidth: cycles(bandwidth) for bandwidth in (1, 10, 100)}
for bandwidth, (total, stalls, used, loaded) in found.items():
    print(f"{bandwidth} words a cycle: total {total:.0f}, stalls {stalls:.0f}, {used:.0f}% used; with the loading {loaded:.0f}")
assert len({row[:3] for row in found.values()}) == 1 and found[1][1] == 0
assert found[1][3] > 4 * found[100][3]
PY
"$folder/venv/bin/python" try.py
