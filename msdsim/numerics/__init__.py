"""Numbers: the Cube and Vector rules, the contract of each dataflow with its whole-tensor reference, error metrics."""
