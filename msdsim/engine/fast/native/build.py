"""Compile the engine ahead for this platform: ``python -m msdsim.engine.fast.native.build``.

It needs numba and a C linker, ``cc``.  With ``--check`` nothing is made; the exit code is 1 if the library is not of the source
that is here.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from msdsim.engine.fast.native import FUNCTION, SOURCE_HASH, TYPES, library_path, load, source_hash

#: The least that a processor of an architecture has; the library runs on all of them.
_BASELINE = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "generic", "arm64": "generic"}


def _compiled() -> Any:
    """LLVM's module of the engine."""
    import llvmlite.binding as llvm
    from numba.core import types

    from msdsim.engine.fast import machine

    pointers = [types.CPointer(getattr(types, kind.__name__)) for kind in TYPES]
    signature = types.void(*pointers)
    function: Any = machine.run_on_pointers
    function.compile(signature)
    compiled = function.overloads[signature.args]
    # No two of the engine's arrays share memory, which numba has no way to say.
    text = "\n".join(re.sub(r"ptr (?!noalias)", "ptr noalias ", line) if line.startswith("define ") else line
                     for line in compiled.library.get_llvm_str().splitlines())
    return llvm.parse_assembly(text + _entry(compiled.fndesc.llvm_func_name))


def _entry(name: str) -> str:
    """A C function around numba's, which also has places for a result and an exception, and the hash of the source."""
    arguments = [f"ptr noalias %a{number}" for number in range(len(TYPES))]
    return f"""
define void @{FUNCTION}({", ".join(arguments)}) {{
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @{name}(ptr %result, ptr %exception, {", ".join(text.replace(" noalias", "") for text in arguments)})
  ret void
}}
@{SOURCE_HASH} = constant [64 x i8] c"{source_hash()}"
"""


def _object() -> bytes:
    """Machine code of the engine for the platform's baseline."""
    import llvmlite.binding as llvm

    module = _compiled()
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in (FUNCTION, SOURCE_HASH):
            value.linkage = "internal"
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=_BASELINE[platform.machine().lower()], opt=3, reloc="pic", codemodel="default")
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code


def build() -> Path:
    """Make the library in a process of its own, as numba takes its target from the environment when it is imported."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "engine.o"
        target = {"NUMBA_CPU_NAME": _BASELINE[platform.machine().lower()], "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": folder}
        subprocess.run([sys.executable, "-m", __spec__.name if __spec__ else __name__, "--object", str(code)], check=True,
                       env=os.environ | target)
        made = Path(folder) / "engine.so"
        # The few functions of the C library that it calls are those of the process, whichever C library that has.
        subprocess.run(["cc", "-shared", "-nostdlib", "-s", "-o", str(made), str(code)], check=True)
        library_path().write_bytes(made.read_bytes())
    return library_path()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the library is of this source")
    parser.add_argument("--object", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.object:
        arguments.object.write_bytes(_object())
        return 0
    if arguments.check:
        fits = load() is not None
        print(f"{library_path().name}: {'up to date' if fits else 'not made from this source; build it anew'}")
        return 0 if fits else 1
    path = build()
    print(f"{path}: {path.stat().st_size:,} bytes, source {source_hash()[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
