"""Give a checkpoint a new tokenizer, its rows filled from the old ones."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "transplant",
    arguments=("source",),
    help="Give the checkpoint SOURCE a new tokenizer; its embedding rows are filled from the old ones.\n\n"
    "\b\nExample: warmstart transplant gpt2 --tokenizer tok-de --initialiser focus --corpus text/ -o model",
)
