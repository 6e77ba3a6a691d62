"""What a report does not know by itself: what eager would have taken."""

from torchy.explain.eager import EagerCosts, Estimate

__all__ = ["EagerCosts", "Estimate"]
