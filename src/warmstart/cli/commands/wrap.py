"""Give linear maps other parameters than their entries."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "wrap",
    arguments=("source",),
    help="Remake linear maps of the checkpoint SOURCE: as chains of cores that layers share (mpo). The "
    "result trains and is measured like any other; plain transformers needs `unwrap` first.\n\n"
    "\b\nExample: warmstart wrap model --method mpo -o wrapped",
)
