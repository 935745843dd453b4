"""Train a checkpoint further on text."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "train",
    arguments=("source",),
    help="Train the checkpoint SOURCE (folder, hub id, name@revision or named source) further on text.\n\n"
    "\b\nExample: warmstart train tiny-en --corpus python-stdlib/docs --max-tokens 1e6 -o my-model",
)
