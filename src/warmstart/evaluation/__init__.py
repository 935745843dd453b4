"""What a model is worth: bits per byte, savings against a baseline, seeds and intervals."""
