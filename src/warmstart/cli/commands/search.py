"""Search a model's sub-networks for the best of a size."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "search",
    arguments=("source",),
    help="Cut the best sub-network of a size out of the checkpoint SOURCE: many combinations of layers, "
    "widths and heads are measured on held-out text as they are, and the best inside the bin of parameters "
    "is kept. Train it a little afterwards.\n\n"
    "\b\nExample: warmstart search model --space '{num_hidden_layers: {min: 2}, hidden_size: [128, 256]}' "
    "--bins '[[0.3, 0.36]]' --corpus texts -o smaller",
)
