"""Stems back as tracks: folders of WAV, FLAC, OGG or MP3."""

from stemplug.tracks.folder import CLIP_MODES, FolderFormat, FolderWriter, TrackReport
from stemplug.tracks.naming import find_songs
from stemplug.tracks.split import Selection, SplitResult, duration, plan, split

__all__ = [
    "CLIP_MODES",
    "FolderFormat",
    "FolderWriter",
    "Selection",
    "SplitResult",
    "TrackReport",
    "duration",
    "find_songs",
    "plan",
    "split",
]
