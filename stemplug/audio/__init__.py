"""Files and buffers: checks, streaming decode, resampling. Knows no model."""

from stemplug.audio.checks import MAX_RATE, MIN_RATE, Audio, as_audio, check_finite, check_rate
from stemplug.audio.reader import AudioReader, ReaderInfo
from stemplug.audio.resample import Resampler, resampler_lag
from stemplug.audio.timeline import Timeline

__all__ = [
    "MAX_RATE",
    "MIN_RATE",
    "Audio",
    "AudioReader",
    "ReaderInfo",
    "Resampler",
    "Timeline",
    "as_audio",
    "check_finite",
    "check_rate",
    "resampler_lag",
]
