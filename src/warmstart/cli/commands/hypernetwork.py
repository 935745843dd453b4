"""Train a network that writes the rows of any tokenizer for a checkpoint (ZeTT)."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "hypernetwork",
    arguments=("source",),
    help="Train a network for the checkpoint SOURCE that writes embedding rows for any tokenizer; `warmstart "
    "transplant` applies it without further training.\n\n"
    "\b\nExample: warmstart hypernetwork tiny-en --corpus multi30k/en -o network\n"
    "         warmstart transplant tiny-en --tokenizer tok --initialiser zett \\\n"
    "                   --set initialiser.hypernetwork=network -o model",
)
