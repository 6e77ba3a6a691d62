"""Watches flushes: what they are given and what they make, so that they can be run again, compared, and looked into."""
