"""Make a model with random weights: the start of training from scratch."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "initialise",
    help="Make a model with random weights for a tokenizer, of given sizes or like another checkpoint.",
)
