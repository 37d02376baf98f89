"""The causal family: a network that hears frame by frame, and remembers. Live it needs no window of the past anew.

The transform has a long window that falls fast, and what comes out of it counts only towards its end (Mauler and
Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis system for speech
enhancement", EUSIPCO 2007). So frequencies are told apart as by a long window, and stems come out two hops after their
sound.

The graph takes ``magnitude`` (1, channels, 1, bins), the number of the ``frame`` and what it remembers, arrays by other
names, which are zeros before the first frame. It gives ``mask`` (1, masked stems * channels, 1, bins), and for every
array that it takes the one to remember, under its name and ``_next``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stemplug.errors import ModelError
from stemplug.models.catalogue import ModelFolder
from stemplug.models.handover import Handover
from stemplug.models.masks import masked_stems, validated
from stemplug.models.runner import Geometry, RunnerOptions, fade_in, profile_settings
from stemplug.models.sessions import Session
from stemplug.models.spleeter import extend_mask
from stemplug.models.transform import Array, Spectrum, spectra
from stemplug.timing import Stopwatch

_NEXT = "_next"
_MOST_MEMORY = 1 << 26
"""Bytes that a graph may remember."""


class _Settings(BaseModel):
    """``[settings]``: the transform, after how many frames the network treats them alike, and how many it remembers.

    That is, once it heard ``memory`` frames of silence, it computes the same whatever was before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fft: Annotated[int, Field(ge=64, le=65536)]
    stft_hop: Annotated[int, Field(ge=16)]
    bins: Annotated[int, Field(ge=16)]
    period: Annotated[int, Field(ge=1, le=4096)]
    memory: Annotated[int, Field(ge=1, le=1 << 16)]

    @model_validator(mode="after")
    def _consistent(self) -> _Settings:
        if self.fft < 2 * self.stft_hop or self.bins > self.fft // 2 + 1:
            raise ValueError("they do not fit together")
        return self


class _Profile(BaseModel):
    """``[profiles.NAME]``: how many frames of the transform a window brings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Annotated[int, Field(ge=1, le=8192)] = 1


class CausalRunner:
    """The network, and what all streams share. Each stream has a `Memory` of its own: see `begin`."""

    def __init__(self, folder: ModelFolder, settings: _Settings, profile: _Profile, options: RunnerOptions) -> None:
        manifest = folder.manifest
        self._name, self._settings = manifest.name, settings
        self._channels, self._masked = manifest.channels, masked_stems(manifest)
        self._session = Session(folder.read("model"), self._name, threads=1, device=options.device, constants={})
        self.provider = self._session.provider
        self._silence = self._check_ends()
        fft, hop = settings.fft, settings.stft_hop
        self.geometry = Geometry(hop=profile.frames * hop, fade=hop, left=fft - 2 * hop, right=0, remembers=True)
        self._frames = profile.frames
        rise, fall = np.hanning(2 * (fft - hop) + 1)[: fft - hop], np.hanning(2 * hop + 1)[hop:-1]
        window = np.sqrt(np.concatenate([rise, fall]))
        window *= np.linalg.norm(np.hanning(fft + 1)) / np.linalg.norm(window)  # as loud as a Hann window
        self._window = window.astype(np.float32)
        self._unwindow = (1 / np.maximum(window[-2 * hop :], 1e-6)).astype(np.float32)
        self._ramp = fade_in(hop)
        self.infer_once()

    def begin(self, first: int = 0) -> Memory:
        """See `stemplug.models.Runner`."""
        return Memory(self, first * self._frames % self._settings.period, self._settings.memory)

    def __call__(
        self, mixtures: Array, stems: Sequence[str], watch: Stopwatch, handover: Handover | None = None
    ) -> Array:
        """See `stemplug.models.Runner`: the first window of a stream."""
        return self.begin()(mixtures, stems, watch)

    def infer_once(self) -> None:
        """See `stemplug.models.Runner`."""
        memory = self.remember_nothing()
        for frame in range(self.geometry.hop // self._settings.stft_hop):
            self.masks(np.zeros((self._channels, self._settings.bins), np.float32), frame, memory)

    def remember_nothing(self) -> dict[str, Array]:
        """What the network remembers before the first frame."""
        return dict(self._silence)

    def masks(self, magnitude: Array, frame: int, memory: dict[str, Array]) -> Array:
        """(channels, bins) to masks (masked stems, channels, bins); what it remembers is renewed."""
        heard = {"magnitude": magnitude[np.newaxis, :, np.newaxis], "frame": np.array(frame, np.int64)}
        masks, *following = self._session.run(["mask", *(name + _NEXT for name in memory)], heard | memory)
        memory.update(zip(memory, following, strict=True))
        found: Array = masks.reshape(len(self._masked), self._channels, -1)
        return found

    def frames(self, window: int) -> int:
        """How many frames of the transform a window of so many samples has."""
        return (window - self._settings.fft) // self._settings.stft_hop + 1

    def separate(
        self, mixture: Array, stems: Sequence[str], out: Array, first: int, memory: dict[str, Array], watch: Stopwatch
    ) -> None:
        """A window (channels, samples) into ``out`` (stems, channels, samples), of which the rest stays as it is.

        Its first frame is the ``first``-th of the stream.
        """
        fft, hop, left = self._settings.fft, self._settings.stft_hop, self.geometry.left
        for number in range(self.frames(mixture.shape[1])):
            at = number * hop
            with watch("stft"):
                spectrum = spectra(mixture[:, at : at + fft], self._window)
                magnitude = np.abs(spectrum[:, : self._settings.bins])
            with watch("inference"):
                masks = self.masks(magnitude, first + number, memory)
            with watch("istft"):
                audio = self._sound(masks, spectrum, stems)
                end = out[..., left + at : left + at + 2 * hop]
                end[..., :hop] += (audio[..., :hop] - end[..., :hop]) * (self._ramp if number else 1)
                end[..., hop:] = audio[..., hop:]

    def _sound(self, masks: Array, spectrum: Spectrum, stems: Sequence[str]) -> Array:
        """The last two hops of a frame's stems (stems, channels, 2 * hop), as loud as the mixture throughout."""
        shares = extend_mask(masks, spectrum.shape[-1])
        named = dict(zip(self._masked, shares, strict=True))
        wanted = np.stack([named[stem] if stem in named else 1 - shares.sum(axis=0) for stem in stems])
        audio: Array = np.fft.irfft(spectrum * wanted)[..., -len(self._unwindow) :].astype(np.float32) * self._unwindow
        return audio

    def _check_ends(self) -> dict[str, Array]:
        """Nothing remembered, as zeros; raises `ModelError` unless the graph's inputs and outputs fit the manifest."""
        inputs, outputs = self._session.inputs, self._session.outputs
        real, bins = "tensor(float)", self._settings.bins
        expected = {"magnitude": (real, [1, self._channels, 1, bins]), "frame": ("tensor(int64)", [])}
        masks = {"mask": (real, [1, len(self._masked) * self._channels, 1, bins])}
        memories = {name: end for name, end in inputs.items() if name not in expected}
        shapes = [shape for _, shape in memories.values()]
        plain = all(kind == real for kind, _ in memories.values()) and all(
            isinstance(size, int) and size > 0 for shape in shapes for size in shape
        )
        if (
            inputs != expected | memories
            or outputs != masks | {name + _NEXT: end for name, end in memories.items()}
            or not plain
            or 4 * sum(np.prod(shape, dtype=float) for shape in shapes) > _MOST_MEMORY
        ):
            raise ModelError(
                f"{self._name}: the graph's inputs and outputs do not fit the manifest. Reinstall the model."
            )
        return {name: np.zeros(shape, np.float32) for name, (_, shape) in memories.items()}


class Memory:
    """Separates the windows of one stream, which must come in order: see `stemplug.models.Runner.begin`.

    Silence is heard only as long as something from before it is remembered; after that it would change nothing.
    """

    def __init__(self, runner: CausalRunner, first: int, memory: int) -> None:
        self._runner, self._memory = runner, memory
        self._remembered: list[dict[str, Array]] = []
        self._frame = first
        self._silent = memory  # frames since anything sounded

    def __call__(
        self, mixtures: Array, stems: Sequence[str], watch: Stopwatch, handover: Handover | None = None
    ) -> Array:
        """See `stemplug.models.Runner`."""
        batch, channels, window = mixtures.shape
        self._remembered = self._remembered or [self._runner.remember_nothing() for _ in range(batch)]
        out = np.zeros((batch, len(stems), channels, window), np.float32)
        sounds = mixtures.any()
        if sounds or self._silent < self._memory:
            for mixture, target, memory in zip(mixtures, out, self._remembered, strict=True):
                self._runner.separate(mixture, stems, target, self._frame, memory, watch)
        frames = self._runner.frames(window)
        self._silent = 0 if sounds else self._silent + frames
        self._frame += frames
        return out


def load(folder: ModelFolder, options: RunnerOptions) -> CausalRunner:
    """Load a model of this family; raises `ModelError` where settings, profile or graph are wrong."""
    settings = validated(_Settings, folder.manifest.settings, folder)
    profile = validated(_Profile, profile_settings(folder.manifest, options), folder)
    return CausalRunner(folder, settings, profile, options)
