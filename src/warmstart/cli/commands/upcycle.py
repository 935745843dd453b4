"""Make a dense model into a mixture of experts."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "upcycle",
    arguments=("source",),
    help="Make the dense checkpoint SOURCE into a mixture of experts: Llama and Mistral into Mixtral, Qwen "
    "into its mixtures. Before training it computes what the dense model did.\n\n"
    "\b\nExample: warmstart upcycle model --experts 4 --experts-per-token 2 -o mixture",
)
