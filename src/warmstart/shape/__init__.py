"""How big a model is: sizes changed, blocks wrapped, checkpoints merged, and training runs planned."""
