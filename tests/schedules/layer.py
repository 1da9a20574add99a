"""A workload of two matmuls, as a file has it."""

LAYER = """\
description = "two matmuls"
source = "made up"
dataflow = "msd-int8"
[[op]]
name = "up"
count = 3
problem = "gemm:m=4,k=64,n=48"
[[op]]
name = "down"
count = 3
problem = "gemm:m=4,k=48,n=64"
"""
