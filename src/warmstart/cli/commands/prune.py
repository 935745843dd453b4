"""Set the smallest weights to zero."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "prune",
    arguments=("source",),
    help="Set the smallest entries of the linear maps of the checkpoint SOURCE to zero. Of a wrapped one the "
    "frozen matrices are pruned, and stay so when the updates are trained on. Sizes stay: to take whole "
    "heads and units out, use `shrink`.\n\n"
    "\b\nExample: warmstart prune tuned --share 0.5 -o sparse",
)
