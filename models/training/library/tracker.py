"""Songs of trackers (MOD, S3M, XM, IT), whose instruments can be heard one by one: libopenmpt plays them."""

from __future__ import annotations

import ctypes
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_double, c_int, c_int32, c_size_t, c_uint8, c_void_p
from ctypes.util import find_library
from functools import cache
from typing import Any

import numpy as np

from .audio import Audio

NOTES = 120  # what lies above are commands
_SEPARATION = 2  # OPENMPT_MODULE_RENDER_STEREOSEPARATION_PERCENT
_CHUNK = 1 << 16
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "ext_create_from_memory": (c_void_p, c_char_p, c_size_t, *[c_void_p] * 7),
    "ext_destroy": (None, c_void_p),
    "ext_get_module": (c_void_p, c_void_p),
    "ext_get_interface": (c_int, c_void_p, c_char_p, c_void_p, c_size_t),
    "set_render_param": (c_int, c_void_p, c_int, c_int32),
    "get_duration_seconds": (c_double, c_void_p),
    "get_num_samples": (c_int32, c_void_p),
    "get_num_instruments": (c_int32, c_void_p),
    "get_num_channels": (c_int32, c_void_p),
    "get_num_patterns": (c_int32, c_void_p),
    "get_pattern_num_rows": (c_int32, c_void_p, c_int32),
    "get_pattern_row_channel_command": (c_uint8, c_void_p, c_int32, c_int32, c_int32, c_int),
    "get_sample_name": (c_void_p, c_void_p, c_int32),
    "get_instrument_name": (c_void_p, c_void_p, c_int32),
    "read_interleaved_float_stereo": (c_size_t, c_void_p, c_int32, c_size_t, c_void_p),
}
_LOGS = ctypes.CFUNCTYPE(None, c_char_p, c_void_p)(lambda *_: None)  # nowhere
_MUTES = ctypes.CFUNCTYPE(c_int, c_void_p, c_int32, c_int)


class _Interactive(ctypes.Structure):
    """``openmpt_module_ext_interface_interactive``: of its functions only the one that mutes an instrument is used."""

    _fields_ = [("before", c_void_p * 12), ("set_instrument_mute_status", _MUTES), ("after", c_void_p * 3)]


@cache
def library() -> Any:
    """libopenmpt. Raises `OSError` where it is not installed."""
    found = ctypes.CDLL(find_library("openmpt") or "libopenmpt.so.0")
    for function, (result, *arguments) in _SIGNATURES.items():
        function = getattr(found, f"openmpt_module_{function}")
        function.restype, function.argtypes = result, arguments
    return found


class Module:
    """A tracker's song. Raises `ValueError` where that is not what the data are.

    Where it has no instruments its samples take their place, as in libopenmpt.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        with self._opened() as (_, module):
            call = library()
            self.seconds = float(call.openmpt_module_get_duration_seconds(module))
            instruments = call.openmpt_module_get_num_instruments(module)
            count = instruments or call.openmpt_module_get_num_samples(module)
            name_of = call.openmpt_module_get_instrument_name if instruments else call.openmpt_module_get_sample_name
            self.names = [ctypes.string_at(name_of(module, i)).decode(errors="replace") for i in range(count)]
            self.notes = self._notes(module)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        call, nothing = library(), [None] * 5
        logs = ctypes.cast(_LOGS, c_void_p)
        handle = call.openmpt_module_ext_create_from_memory(self._data, len(self._data), logs, None, *nothing)
        if not handle:
            raise ValueError("not a tracker's song")
        try:
            yield handle, call.openmpt_module_ext_get_module(handle)
        finally:
            call.openmpt_module_ext_destroy(handle)

    def _notes(self, module: Any) -> dict[int, Counter[int]]:
        """Of each instrument that is used, how often the patterns have which note."""
        call, found = library(), defaultdict[int, Counter[int]](Counter)
        command, latest = call.openmpt_module_get_pattern_row_channel_command, dict[int, int]()
        for pattern in range(call.openmpt_module_get_num_patterns(module)):
            for row in range(call.openmpt_module_get_pattern_num_rows(module, pattern)):
                for channel in range(call.openmpt_module_get_num_channels(module)):
                    note, instrument = (command(module, pattern, row, channel, what) for what in (0, 1))
                    latest[channel] = instrument or latest.get(channel, 0)
                    if 0 < note <= NOTES and 0 < latest[channel] <= len(self.names):
                        found[latest[channel] - 1][note] += 1
        return dict(found)

    def play(self, instruments: Collection[int], rate: int, seconds: float, width: float = 1.0) -> Audio:
        """The song (2, frames) with these instruments alone; stereo is ``width`` (0 to 1) times as wide."""
        call = library()
        with self._opened() as (handle, module):
            interactive = _Interactive()
            size = ctypes.sizeof(interactive)
            if not call.openmpt_module_ext_get_interface(handle, b"interactive", byref(interactive), size):
                raise ValueError("this libopenmpt cannot mute instruments")
            for number in range(len(self.names)):
                interactive.set_instrument_mute_status(handle, number, number not in instruments)
            call.openmpt_module_set_render_param(module, _SEPARATION, round(100 * width))
            audio, end = np.zeros((round(seconds * rate), 2), np.float32), 0
            while end < len(audio):
                place, room = audio[end:].ctypes.data_as(c_void_p), min(_CHUNK, len(audio) - end)
                got = call.openmpt_module_read_interleaved_float_stereo(module, rate, room, place)
                if not got:
                    break
                end += got
        return audio[:end].T
