"""What the weights of a model family mean: named axes with roles, vocabulary sites, sizes and costs.

The tables are data (`families/*.yaml`); adding a family is one file.
"""

from warmstart.anatomy.counting import ParameterCounts
from warmstart.anatomy.groups import AxisGroup, Member, VocabularySites
from warmstart.anatomy.model import Anatomy, anatomy_of, anatomy_of_model
from warmstart.anatomy.notation import Dim, Entry, Factor, TensorSpec

__all__ = [
    "Anatomy",
    "AxisGroup",
    "Dim",
    "Entry",
    "Factor",
    "Member",
    "ParameterCounts",
    "TensorSpec",
    "VocabularySites",
    "anatomy_of",
    "anatomy_of_model",
]
