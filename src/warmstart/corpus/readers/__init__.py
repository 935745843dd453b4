"""File formats: one file each, registered with the suffixes it reads."""
