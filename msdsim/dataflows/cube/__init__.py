"""What runs on the Cube: operands, the order of output tiles, the main loop, and what a tiling must satisfy."""
