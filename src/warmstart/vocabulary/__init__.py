"""What a model reads: new tokenizers, and the rows that a new vocabulary needs."""
