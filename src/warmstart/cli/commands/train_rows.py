"""Train the rows of new tokens by the model that knows the old ones."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "train-rows",
    arguments=("source",),
    help="Train the rows of the tokens that the checkpoint SOURCE has and its reference lacks, and nothing "
    "else.\n\n"
    "\b\nExample: warmstart train-rows model-with-new-tokens --reference tiny-en --corpus text/ -o model",
)
