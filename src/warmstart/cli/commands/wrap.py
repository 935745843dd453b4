"""Give linear maps other parameters than their entries."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "wrap",
    arguments=("source",),
    help="Remake linear maps of the checkpoint SOURCE: as chains of cores that layers share (mpo), with a "
    "low-rank update (low-rank), or with a few free entries besides (sparse-low-rank). The result trains and "
    "is measured like any other; plain transformers needs `export` first.\n\n"
    "\b\nExample: warmstart wrap model --method mpo -o wrapped",
)
