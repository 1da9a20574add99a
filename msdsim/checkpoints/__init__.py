"""Files that hold a model's weights: what is in them, by their headers."""
