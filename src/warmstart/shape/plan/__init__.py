"""Parameters, operations, bytes, layouts and duration of a training run, and the cheapest way to a size.

Everything is counted from the family tables, so every family that has one can be planned. The formulas are
those of ZeRO, Megatron-LM and MT-NLG 530B; each module names its papers.
"""

from warmstart.shape.plan.layout import Layout, bubble, in_flight
from warmstart.shape.plan.memory import Memory, memory_of
from warmstart.shape.plan.operations import gpt_operations, gpt_parameters, operations_of
from warmstart.shape.plan.planner import open_anatomy, plan, workload_of
from warmstart.shape.plan.ramp import RampSettings, learning_rate, levels
from warmstart.shape.plan.search import Candidate, evaluate, search
from warmstart.shape.plan.settings import PlanSettings
from warmstart.shape.plan.surgeries import Route, routes, surgeries
from warmstart.shape.plan.workload import Workload

__all__ = [
    "Candidate",
    "Layout",
    "Memory",
    "PlanSettings",
    "RampSettings",
    "Route",
    "Workload",
    "bubble",
    "evaluate",
    "gpt_operations",
    "gpt_parameters",
    "in_flight",
    "learning_rate",
    "levels",
    "memory_of",
    "open_anatomy",
    "operations_of",
    "plan",
    "routes",
    "search",
    "surgeries",
    "workload_of",
]
