"""The Spleeter family: U-Nets that turn the magnitudes of a short-time Fourier transform into ratio masks.

Method: Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained models",
JOSS 5(50), 2154, 2020. The networks see the lowest bins only; what the mask is above them is told in `extend_mask`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel, ConfigDict, Field

from stemplug.errors import ModelError
from stemplug.models.catalogue import ModelFolder
from stemplug.models.handover import Handover
from stemplug.models.manifest import LIVE, Manifest
from stemplug.models.masks import (
    FIRST,
    Context,
    Cuts,
    Graph,
    Margins,
    Network,
    Settings,
    masked_stems,
    open_network,
    read_settings,
    validated,
)
from stemplug.models.runner import Geometry, RunnerOptions, profile_settings
from stemplug.models.scratch import Scratch
from stemplug.models.transform import Array, Spectrum, spectra
from stemplug.timing import Stopwatch

_BLOCK = 16
_NO_PHASES = np.empty((0, 0, 0), np.complex64)


class _Profile(BaseModel):
    """``[profiles.NAME]``: in frames of the transform."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Annotated[int, Field(ge=1, le=8192)]
    left: Annotated[int, Field(ge=0)]
    right: Annotated[int, Field(ge=0)]
    fade: Annotated[int, Field(ge=0)] = 0

    def fits(self, settings: Settings, trim: Margins) -> bool:
        inner = self.frames - self.left - self.right
        enough = inner - settings.fft // settings.stft_hop + 1 >= max(1, 2 * self.fade)
        whole = self.frames % settings.stride == 0
        return whole and enough and trim[0] <= self.left and trim[1] <= self.right


class _Live(BaseModel):
    """``[profiles.live.NAME]``: in frames of the transform; see `LiveRunner`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Annotated[int, Field(ge=1, le=8192)]
    hop: Annotated[int, Field(ge=1)]
    right: Annotated[int, Field(ge=1)]
    guessed: Annotated[int, Field(ge=1)]
    bins: Annotated[int, Field(ge=16)]

    def fits(self, settings: Settings) -> bool:
        enough = self.guessed + self.right + self.hop <= self.frames and self.frames % settings.stride == 0
        seen = self.bins <= settings.bins and not settings.phases
        return enough and seen and self.right < settings.fft // settings.stft_hop


class _Runner:
    """What the two runners of the family share: the network, and windows one at a time."""

    geometry: Geometry

    def __init__(self, manifest: Manifest, settings: Settings, network: Network) -> None:
        self._channels, self._masked = manifest.channels, masked_stems(manifest)
        self._settings, self._network = settings, network
        self._scratch = Scratch()
        self.provider = network.provider

    def __call__(
        self, mixtures: Array, stems: Sequence[str], watch: Stopwatch, handover: Handover | None = None
    ) -> Array:
        """See `stemplug.models.Runner`."""
        batch, channels, window = mixtures.shape
        out = np.zeros((batch, len(stems), channels, window), np.float32)
        for mixture, target in zip(mixtures, out, strict=True):
            self._separate(mixture, stems, target, watch, handover if batch == 1 else None)
        return out

    def begin(self, first: int = 0) -> Self:
        """See `stemplug.models.Runner`: windows do not depend on each other."""
        return self

    def network(
        self, magnitude: Array, spectrum: Spectrum, context: Context, handover: Handover | None = None
    ) -> Array:
        """Run the network: see `Network`."""
        return self._network(magnitude, spectrum, context, handover)

    def _separate(
        self, mixture: Array, stems: Sequence[str], out: Array, watch: Stopwatch, handover: Handover | None
    ) -> None:
        """(channels, window) into silent ``out``, (stems, channels, window); the context stays silent."""
        raise NotImplementedError

    def _shares(self, masks: Array, stems: Sequence[str], bins: int) -> Iterator[Array]:
        """The share of each stem in the whole spectrum, from masks (masked stems, ..., low bins)."""
        shares = extend_mask(masks, bins)
        named = dict(zip(self._masked, shares, strict=True))
        return (named[stem] if stem in named else 1 - shares.sum(axis=0) for stem in stems)


class SpleeterRunner(_Runner):
    """Windows of a whole number of transform frames, of which the outer ones are context for the network.

    With as much context as the network's reach, windows give what one pass over the whole song would: the network is
    convolutional, and windows lie on the grid of its strides. Where the context is digital silence, as before the
    song, it is left out, so that the network sees an edge as it did in training, and short songs take little time.
    """

    def __init__(self, manifest: Manifest, settings: Settings, profile: _Profile, network: Network) -> None:
        super().__init__(manifest, settings, network)
        self._profile = profile
        fft, hop = settings.fft, settings.stft_hop
        overlap = fft // hop
        inner = profile.frames - profile.left - profile.right  # frames whose masks are used
        used = inner - overlap + 1 - profile.fade
        on_grid = used % settings.stride == 0 and profile.fade <= settings.stride
        self.geometry = Geometry(
            hop=used * hop,
            fade=profile.fade * hop,
            left=(profile.left + overlap - 1) * hop,
            right=(profile.right + overlap - 1) * hop,
            step=settings.stride * hop if on_grid else 0,
        )
        window = np.hanning(fft + 1)[:-1]
        self._analysis = window.astype(np.float32)
        self._synthesis = (window / np.sum(window[::hop] ** 2)).astype(np.float32)

    def infer_once(self) -> None:
        """See `stemplug.models.Runner`."""
        silence = np.zeros((self._channels, self._profile.frames, self._settings.bins), np.float32)
        self.network(silence, silence.astype(np.complex64), (False, False))

    def _separate(
        self, mixture: Array, stems: Sequence[str], out: Array, watch: Stopwatch, handover: Handover | None
    ) -> None:
        fft, hop = self._settings.fft, self._settings.stft_hop
        frames = (mixture.shape[1] - fft) // hop + 1
        inner = slice(self._profile.left, frames - self._profile.right)
        with watch("stft"):
            magnitude, spectrum = self._analyze(mixture)
        with watch("inference"):
            masks = self._masks(magnitude, spectrum, inner, handover if self.geometry.step else None)
        with watch("istft"):
            covered = out[..., inner.start * hop : (inner.stop - 1) * hop + fft]
            self._synthesize(masks, spectrum[:, inner], stems, covered)

    def _analyze(self, mixture: Array) -> tuple[Array, Spectrum]:
        """Magnitudes (channels, frames, low bins) and spectra (channels, frames, bins) of a window."""
        settings, channels = self._settings, len(mixture)
        pieces = sliding_window_view(mixture, settings.fft, axis=1)[:, :: settings.stft_hop]
        frames = pieces.shape[1]
        magnitude: Array = self._scratch("magnitude", (channels, frames, settings.bins), np.float32)
        spectrum = self._scratch("spectrum", (channels, frames, settings.fft // 2 + 1), np.complex64)
        for channel in range(channels):
            for block in _blocks(frames):
                found = spectra(pieces[channel, block], self._analysis, spectrum[channel, block])
                np.abs(found[:, : settings.bins], out=magnitude[channel, block])
        return magnitude, spectrum

    def _masks(self, magnitude: Array, spectrum: Spectrum, inner: slice, handover: Handover | None) -> Array:
        """Masks of the inner frames of a window, (masked stems, channels, frames, bins)."""
        frames, bins, stride = magnitude.shape[1], magnitude.shape[2], self._settings.stride
        count = inner.stop - inner.start
        sounding = np.flatnonzero(magnitude.any(axis=(0, 2)))
        if not len(sounding) or sounding[-1] < inner.start or sounding[0] >= inner.stop:
            if handover:
                handover.refuse()
            return np.zeros((len(self._masked), self._channels, count, bins), np.float32)
        # The first frame with sound holds only the end of the transform's window, so it may be cut off as well.
        start = min(int(sounding[0]) + 1, inner.stop - 1) // stride * stride
        start = start if start >= inner.start else 0
        stop = min(frames, start - (start - int(sounding[-1]) - 1) // stride * stride)
        context = start == 0, stop == frames
        if stop - start < frames:
            kept = self._scratch("kept", (len(magnitude), stop - start, bins), np.float32)
            kept[:], magnitude = magnitude[:, start:stop], kept
        if handover:
            handover.count(self._settings.stft_hop, start)
        found = self.network(magnitude, spectrum[:, start:stop], context, handover)
        begin = start + context[0] * self._network.trim[0] - inner.start
        end = begin + found.shape[2]
        if begin > 0 or end < count:
            edges = (0, 0), (0, 0), (max(0, begin), 0), (0, 0)
            silence = (0, 0), (0, 0), (0, max(0, count - end)), (0, 0)
            found = np.pad(np.pad(found, silence), edges, mode="edge")
        return found[:, :, max(0, -begin) :][:, :, :count]

    def _synthesize(self, masks: Array, spectrum: Spectrum, stems: Sequence[str], out: Array) -> None:
        """Mask, transform back, and overlap-add into ``out`` (stems, channels, inner frames and their overlap)."""
        hop, bins = self._settings.stft_hop, spectrum.shape[-1]
        overlap = self._settings.fft // hop
        pieces_of = out.reshape(*out.shape[:2], -1, hop)
        for channel in range(self._channels):
            for block in _blocks(spectrum.shape[1]):
                shares = self._shares(masks[:, channel, block], stems, bins)
                for share, target in zip(shares, pieces_of[:, channel], strict=True):
                    pieces = np.fft.irfft(spectrum[channel, block] * share)
                    pieces *= self._synthesis
                    pieces = pieces.reshape(len(pieces), overlap, hop)
                    for part in range(overlap):
                        target[block.start + part : block.stop + part] += pieces[:, part]


class LiveRunner(_Runner):
    """Short windows that slide over the song, for the masks of the newest frames alone.

    Each brings ``hop`` frames and ends ``right`` frames later. Where that is less than a frame reaches over, the frames
    that would end later are missing in the overlap-add, which is divided by what the others weigh.

    Masks of the newest frames are weak for want of a future. In its place the network sees, ``guessed`` times, the
    newest samples through a window that rises slowly and falls fast, and so tells more of what sounds last (such
    windows: Mauler and Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis
    system for speech enhancement", EUSIPCO 2007).
    """

    def __init__(self, folder: ModelFolder, settings: Settings, profile: _Live, options: RunnerOptions) -> None:
        self._profile = profile
        fft, hop = settings.fft, settings.stft_hop
        self._overlap = fft // hop
        self._count = profile.frames - profile.guessed  # frames of the transform
        self._first = self._count - profile.hop - profile.right  # of those that reach into the hop
        self._context = bool(settings.cuts.skip), False
        cuts = _cuts(settings.cuts, self._first)
        graph = Graph(folder.read("model"), folder.manifest, settings, options, constants=cuts)
        super().__init__(folder.manifest, settings, graph)
        self.geometry = Geometry(
            hop=profile.hop * hop,
            fade=0,
            left=(self._first + self._overlap - 1) * hop,
            right=profile.right * hop,
        )
        window = np.hanning(fft + 1)[:-1]
        late = np.concatenate([np.hanning(2 * (fft - hop) + 1)[: fft - hop], np.hanning(2 * hop + 1)[hop:-1]])
        late *= np.linalg.norm(window) / np.linalg.norm(late)  # as loud as the others
        self._window, self._late = window.astype(np.float32), late.astype(np.float32)
        self._weight = self._overlap_add(np.tile(self._window**2, (self._count - self._first, 1)))

    def infer_once(self) -> None:
        """See `stemplug.models.Runner`."""
        silence = np.zeros((self._channels, self._profile.frames, self._profile.bins), np.float32)
        self.network(silence, _NO_PHASES, self._context)

    def _separate(
        self, mixture: Array, stems: Sequence[str], out: Array, watch: Stopwatch, handover: Handover | None
    ) -> None:
        with watch("stft"):
            magnitude, spectrum = self._analyze(mixture)
        if not magnitude[:, self._first :].any():
            return
        with watch("inference"):
            masks = self.network(magnitude, _NO_PHASES, self._context)
            skipped = self._profile.frames - masks.shape[2]
            masks = masks[:, :, self._first - skipped : self._count - skipped]
        with watch("istft"):
            kept = slice(self.geometry.left, self.geometry.left + self.geometry.hop)
            for channel in range(self._channels):
                shares = self._shares(masks[:, channel], stems, spectrum.shape[-1])
                for share, target in zip(shares, out[:, channel, kept], strict=True):
                    pieces: Array = np.multiply(np.fft.irfft(spectrum[channel] * share), self._window)
                    np.divide(self._overlap_add(pieces), self._weight, out=target)

    def _analyze(self, mixture: Array) -> tuple[Array, Spectrum]:
        """Magnitudes (channels, frames, low bins) for the network, and spectra of the frames that get a mask."""
        settings, count, first, bins = self._settings, self._count, self._first, self._profile.bins
        pieces = sliding_window_view(mixture, settings.fft, axis=1)[:, :: settings.stft_hop]
        magnitude: Array = self._scratch("magnitude", (len(mixture), self._profile.frames, bins), np.float32)
        shape = len(mixture), count - first, settings.fft // 2 + 1
        spectrum: Spectrum = self._scratch("spectrum", shape, np.complex64)
        for channel, (frames, seen) in enumerate(zip(pieces, magnitude, strict=True)):
            for block in _blocks(first):
                np.abs(spectra(frames[block], self._window)[:, :bins], out=seen[block])
            spectra(frames[first:], self._window, spectrum[channel])
            np.abs(spectrum[channel, :, :bins], out=seen[first:count])
            seen[count:] = np.abs(spectra(frames[-1], self._late)[:bins])
        return magnitude, spectrum

    def _overlap_add(self, pieces: Array) -> Array:
        """Frames that reach into the hop, (frames, fft), to its samples."""
        parts = pieces.reshape(len(pieces), self._overlap, -1)
        total = np.zeros((len(parts) + self._overlap - 1, parts.shape[2]), np.float32)
        for part in range(self._overlap):
            total[part : part + len(parts)] += parts[:, part]
        return total[self._overlap - 1 :][: self._profile.hop].reshape(-1)


def _cuts(cuts: Cuts, first: int) -> dict[str, list[int]]:
    """Constants with which the graph leaves out what masks from frame ``first`` on do not need, on the left.

    As `TRIM` in models/training/graph.py: of what is cut off a level, twice as many frames are missing in the
    next finer one, and 3 more are wrong; 5 more after the finest.
    """
    levels: list[int] = []
    wrong = 5
    for _ in cuts.skip:
        first = max(0, (first - wrong) // 2)
        levels.insert(0, first)
        wrong = 3
    constants: dict[str, list[int]] = {}
    before = 0
    for level, below, skip in zip(levels, cuts.below, cuts.skip, strict=True):
        constants |= {name: [level - 2 * before, 0] for name in below} | {name: [level, 0] for name in skip}
        before = level
    return constants


def _blocks(frames: int) -> Iterator[slice]:
    """Few frames at a time: intermediate results stay in the processor's cache."""
    return (slice(start, min(start + _BLOCK, frames)) for start in range(0, frames, _BLOCK))


def extend_mask(masks: Array, bins: int) -> Array:
    """Continue masks above the network's band: (..., low bins) to (..., bins).

    The mean of the mask over the upper part of the band (6 to 11 kHz of 11 kHz), of the same frame and channel, falling
    off linearly to half at the top: sibilants and breath go on above the band, but what lies highest is rather cymbals.
    What it gains over silence there is told in models/spleeter-2stems/CARD.md.
    """
    low = masks.shape[-1]
    above = np.mean(masks[..., low * 557 // 1024 :], axis=-1, keepdims=True)
    fall = 1 - 0.5 * np.arange(bins - low, dtype=np.float32) / max(1, bins - 1 - low)
    return np.concatenate([masks, above * fall], axis=-1)


def load(folder: ModelFolder, options: RunnerOptions) -> SpleeterRunner | LiveRunner:
    """Load a model of this family; raises `ModelError` where settings, profile or graphs are wrong."""
    settings, chosen = read_settings(folder), profile_settings(folder.manifest, options)
    unfit = f"{folder.path}: settings and profile {options.profile} do not fit together. Reinstall it."
    if options.profile == LIVE:
        live = validated(_Live, chosen, folder)
        if FIRST in folder.manifest.files:
            raise ModelError(f"{folder.path}: runs after another model, which no live profile can. Use 'offline'.")
        if not live.fits(settings):
            raise ModelError(unfit)
        runner = LiveRunner(folder, settings, live, options)
        runner.infer_once()  # do the constants cut what they should?
        return runner
    profile, network = validated(_Profile, chosen, folder), open_network(folder, settings, options)
    if not profile.fits(settings, network.trim):
        raise ModelError(unfit)
    return SpleeterRunner(folder.manifest, settings, profile, network)
