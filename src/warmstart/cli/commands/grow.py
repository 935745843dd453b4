"""Make a model wider or deeper."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "grow",
    arguments=("source",),
    help="Make the checkpoint SOURCE larger: more layers, wider ones, more heads. Where the family allows "
    "it, the new model computes what the old one did.\n\n"
    "\b\nExample: warmstart grow model --to '{num_hidden_layers: 12, intermediate_size: 4096}' -o larger",
)
