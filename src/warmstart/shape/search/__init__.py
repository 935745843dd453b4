"""Search over sub-networks of one model: sizes, bins of parameters, what each is worth untrained, and ways to
look for the best."""
