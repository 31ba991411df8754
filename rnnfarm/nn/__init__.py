"""Layers with an explicit forward and backward, the network that they form, and its arena."""
