"""One node (floor 2): answers its peers and asks them."""

from .node import Node

__all__ = ["Node"]
