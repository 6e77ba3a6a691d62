"""Trace to plan: what must run, in which order, fused as far as hazards allow."""

from torchy.plan.build import build_plan
from torchy.plan.memory import bytes_saved
from torchy.plan.plan import Call, FusedGroup, Plan, Step

__all__ = ["Call", "FusedGroup", "Plan", "Step", "build_plan", "bytes_saved"]
