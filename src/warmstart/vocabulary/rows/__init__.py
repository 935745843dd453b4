"""One file per way to fill a row mix; the machinery is in `_base`."""
