"""The anatomy tree: regions, organs and structures (9 / 52 / 56), their codes, and what is computed from them."""

from .tree import AnatomyNode, AnatomyTree, Code, UnknownAnatomyError

__all__ = ["AnatomyNode", "AnatomyTree", "Code", "UnknownAnatomyError"]
