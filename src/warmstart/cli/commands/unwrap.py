"""Make wrapped linear maps dense again."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "unwrap",
    arguments=("source",),
    help="Multiply out the wrapped linear maps of the checkpoint SOURCE, for other programs.\n\n"
    "\b\nExample: warmstart unwrap wrapped -o dense",
)
