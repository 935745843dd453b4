"""Make an ordinary checkpoint, which plain transformers opens."""

from warmstart.cli.operation import operation_command

command = operation_command(
    "export",
    arguments=("source",),
    help="Make an ordinary checkpoint of SOURCE, whatever its form: factorised rows and wrapped maps are "
    "multiplied out, layers of their own sizes filled up, skip routers taken out. Refused where tokens may "
    "skip blocks, unless asked for.\n\n"
    "\b\nExample: warmstart export wrapped -o plain",
)
