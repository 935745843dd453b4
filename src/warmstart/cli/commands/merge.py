"""Merge models of one shape."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "merge",
    help="Merge checkpoints of one shape and one tokenizer: mean, slerp, task arithmetic, TIES, DARE.\n\n"
    "\b\nExample: warmstart merge --models model-a,model-b --merge-method slerp -o merged",
)
