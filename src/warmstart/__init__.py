"""warmstart: start every language model from one that exists.

Checkpoint in, checkpoint out, and an honest number for what the reuse saved. Importing the package is
cheap: nothing heavy (torch, transformers) is loaded before a function that needs it is called.
"""

__version__ = "0.1.0"
