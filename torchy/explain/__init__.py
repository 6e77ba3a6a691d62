"""What a report does not know by itself: what eager would have taken, and what to change."""

from torchy.explain.doctor import Finding, findings
from torchy.explain.eager import EagerCosts, Estimate

__all__ = ["EagerCosts", "Estimate", "Finding", "findings"]
