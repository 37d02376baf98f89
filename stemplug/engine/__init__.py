"""The engine: any audio in, aligned stems out. All contracts of the design hold here, for every model."""

from stemplug.engine.installed import ModelInfo, installed_models, model_info
from stemplug.engine.separator import FileSeparation, Separator, separate, shared_separator
from stemplug.engine.stems import STEM_NAMES, Stems
from stemplug.engine.stream import StemStream

__all__ = [
    "STEM_NAMES",
    "FileSeparation",
    "ModelInfo",
    "Separator",
    "StemStream",
    "Stems",
    "installed_models",
    "model_info",
    "separate",
    "shared_separator",
]
