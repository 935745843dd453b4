"""What others found: recipes that chain operations, comparisons, reproductions and their verdicts."""
