"""Which source units correspond to which target units: from parallel sentences, or one text cut twice."""

from warmstart.vocabulary.alignment.covering import covering_counts
from warmstart.vocabulary.alignment.ibm import TranslationTable, mine_dictionary, translation_table

__all__ = ["TranslationTable", "covering_counts", "mine_dictionary", "translation_table"]
