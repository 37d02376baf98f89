"""Separation as a stage of a pedalboard chain."""

from stemplug.chain.board import Board
from stemplug.chain.split import Mute, StemSplit

__all__ = ["Board", "Mute", "StemSplit"]
