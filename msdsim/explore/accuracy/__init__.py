"""How exact every method is: on distributions, on the matmuls of a whole model, and against the claims of the MSD paper."""
