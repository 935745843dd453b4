"""Named data sets: one file per family."""
