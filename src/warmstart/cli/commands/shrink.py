"""Make a model narrower or shallower."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "shrink",
    arguments=("source",),
    help="Make the checkpoint SOURCE smaller: fewer layers, narrower ones, fewer heads. What stays is what "
    "matters most on your text; train it a little afterwards.\n\n"
    "\b\nExample: warmstart shrink model --to '{num_hidden_layers: 6, hidden_size: 384}' "
    "--corpus texts -o smaller",
)
