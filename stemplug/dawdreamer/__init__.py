"""Separation in a DawDreamer graph."""

from stemplug.dawdreamer.graph import SplitGraph

__all__ = ["SplitGraph"]
