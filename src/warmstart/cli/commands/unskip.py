"""Take skip routers out of a checkpoint."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "unskip",
    arguments=("source",),
    help="Take the skip routers out of the checkpoint SOURCE, so that plain transformers opens it. Refused "
    "where they may skip tokens, unless asked for.\n\n"
    "\b\nExample: warmstart unskip skipping -o plain",
)
