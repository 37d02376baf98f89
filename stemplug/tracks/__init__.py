"""Stems back as tracks: folders of WAV, FLAC, OGG or MP3, one file for all, projects of DAWs."""

from stemplug.tracks.folder import CLIP_MODES, FolderFormat, FolderWriter, TrackReport
from stemplug.tracks.job import Selection, SplitResult, check_apart, duration, plan, split
from stemplug.tracks.naming import find_songs

__all__ = [
    "CLIP_MODES",
    "FolderFormat",
    "FolderWriter",
    "Selection",
    "SplitResult",
    "TrackReport",
    "check_apart",
    "duration",
    "find_songs",
    "plan",
    "split",
]
