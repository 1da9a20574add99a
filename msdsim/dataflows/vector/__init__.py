"""What runs on Vector: every recipe once, for whatever dataflow needs it."""
