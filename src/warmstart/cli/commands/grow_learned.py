"""Learn on text how a model grows."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "grow-learned",
    arguments=("source",),
    help="Make the checkpoint SOURCE larger by a map that is learned on text: its weights stay, and what "
    "learns is how they are combined into larger ones.\n\n"
    "\b\nExample: warmstart grow-learned model --to '{hidden_size: 512, num_hidden_layers: 12}' "
    "--corpus text/ -o larger",
)
