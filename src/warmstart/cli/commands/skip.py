"""Give the blocks of a decoder skip routers."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "skip",
    arguments=("source",),
    help="Give every block of the decoder SOURCE a router that lets each token go through the block or "
    "around it. At first all go through and the model computes what it did; `train` teaches the routers "
    "which can be spared.\n\n"
    "\b\nExample: warmstart skip model --density 0.75 -o skipping",
)
