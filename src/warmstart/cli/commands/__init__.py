"""One file per command; the first line of its docstring is its line in `warmstart --help`."""
