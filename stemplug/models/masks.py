"""Networks that turn magnitudes into masks: one ONNX graph, or two, of which the second hears what the first leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stemplug.errors import ModelError
from stemplug.models.catalogue import ModelFolder
from stemplug.models.handover import Handover
from stemplug.models.manifest import Manifest
from stemplug.models.runner import RunnerOptions
from stemplug.models.scratch import Scratch
from stemplug.models.sessions import Session
from stemplug.models.transform import Array, Spectrum

FIRST = "first"
"""The file of another model, in a manifest's list, whose masks the model works on."""
Table = TypeVar("Table", bound=BaseModel)
Number = TypeVar("Number", np.float32, np.complex64)
Context = tuple[bool, bool]
"""Whether the left and the right side of a window are context, rather than an end of what sounds."""
Margins = tuple[int, int]
"""Frames at the left and at the right."""


class Cuts(BaseModel):
    """``[settings.cuts]``: names of the graph's constants that say what each level of the decoder leaves out.

    From the deepest level up: of what comes from below it, and of what skips to it from the encoder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    below: list[list[str]]
    skip: list[list[str]]


class Settings(BaseModel):
    """``[settings]``: the transform, the stride of the network in frames, and what the graph trims off context.

    Of the lowest ``phases`` bins the graph gets the spectrum as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fft: Annotated[int, Field(ge=64, le=65536)]
    stft_hop: Annotated[int, Field(ge=16)]
    bins: Annotated[int, Field(ge=16)]
    stride: Annotated[int, Field(ge=1)]
    trim: tuple[int, int]
    phases: Annotated[int, Field(ge=0)] = 0
    cuts: Cuts = Cuts(below=[], skip=[])

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (
            self.fft % self.stft_hop
            or self.fft < 2 * self.stft_hop
            or self.bins > self.fft // 2 + 1
            or self.phases > self.bins
            or min(self.trim) < 0
            or len(self.cuts.below) != len(self.cuts.skip)
        ):
            raise ValueError("they do not fit together")
        return self


class Network(Protocol):
    """Safe to call from several threads at once.

    ``trim`` says how many frames the masks lack on a side of a window that is context.
    """

    provider: str
    trim: Margins

    def __call__(
        self, magnitude: Array, spectrum: Spectrum, context: Context, handover: Handover | None = None
    ) -> Array:
        """(channels, frames, bins) to masks (masked stems, channels, frames, bins), the thread's until its next call.

        Frames are a multiple of the network's stride; ``spectrum`` has at least the bins of ``magnitude``. By a
        ``handover`` two networks in a row are spared what they found in the window before; its frames are those given.
        """
        ...


class Graph:
    """An ONNX graph. Its masks are those of a model's stems but the residual one and the first ``done``."""

    def __init__(
        self,
        content: bytes,
        manifest: Manifest,
        settings: Settings,
        options: RunnerOptions,
        *,
        done: int = 0,
        constants: Mapping[str, Sequence[int]] = MappingProxyType({}),
    ) -> None:
        self._name, self._shape = manifest.name, (len(masked_stems(manifest)) - done, manifest.channels)
        self.trim, self._phases = settings.trim, settings.phases
        self._session = Session(
            content, self._name, threads=options.threads, device=options.device, constants=constants
        )
        self.provider = self._session.provider
        inputs = {"magnitude": 4, "trim": 1} | ({"spectrum": 5} if self._phases else {})
        self._session.check_ends(inputs, {"mask": 4})
        self._check(settings.stride, settings.bins)

    def __call__(
        self, magnitude: Array, spectrum: Spectrum, context: Context, handover: Handover | None = None
    ) -> Array:
        """See `Network`."""
        inputs = {"magnitude": magnitude[np.newaxis], "trim": np.array(context, np.int64)}
        if self._phases:
            low = np.ascontiguousarray(spectrum[..., : self._phases]).view(np.float32)
            inputs["spectrum"] = low.reshape(1, *low.shape[:2], self._phases, 2)
        masks: Array = self._session.run(["mask"], inputs)[0]
        self._require(masks.shape[:2] == (1, math.prod(self._shape)))
        return masks.reshape(*self._shape, *masks.shape[2:])

    def _check(self, frames: int, bins: int) -> None:
        """Are the masks those that the manifest promises?"""
        silence = np.zeros((self._shape[1], frames, bins), np.float32)
        masks = self(silence, silence.astype(np.complex64), (False, False))
        self._require(masks.dtype == np.float32 and masks.shape == (*self._shape, frames, bins))

    def _require(self, fit: bool) -> None:
        if not fit:
            raise ModelError(f"{self._name}: the graph's masks do not fit the manifest. Reinstall the model.")


class Cascade:
    """Two networks in a row: the second divides what the masks of the first leave of the magnitudes.

    It gets no frame for which the first had too little context, so that its own context is as true as what is within;
    and whole strides are cut off, so that it stays on the grid.
    """

    def __init__(self, first: Graph, second: Graph, stride: int, phases: int) -> None:
        self._first, self._second, self._stride, self._phases = first, second, stride, phases
        self._cut = -(-first.trim[0] // stride) * stride, -(-first.trim[1] // stride) * stride
        self.trim = self._cut[0] + second.trim[0], self._cut[1] + second.trim[1]
        self.provider = second.provider
        self._scratch = Scratch()

    def __call__(
        self, magnitude: Array, spectrum: Spectrum, context: Context, handover: Handover | None = None
    ) -> Array:
        """See `Network`."""
        taken = self._taken(magnitude, spectrum, context, handover)
        share: Array = self._scratch("share", taken.shape[1:], np.float32)
        np.subtract(1, taken[0], out=share)
        for mask in taken[1:]:
            share -= mask
        rest: Array = self._scratch("rest", share.shape, np.float32)
        np.multiply(_within(magnitude, self._cut, context), share, out=rest)
        low = _within(spectrum, self._cut, context)[..., : self._phases] * share[..., : self._phases]
        divided = self._second(rest, low, context)
        taken, share = (_within(array, self._second.trim, context) for array in (taken, share))
        masks: Array = self._scratch("masks", (len(taken) + len(divided), *share.shape), np.float32)
        masks[: len(taken)] = taken
        np.multiply(divided, share, out=masks[len(taken) :])
        return masks

    def _taken(self, magnitude: Array, spectrum: Spectrum, context: Context, handover: Handover | None) -> Array:
        """The masks of the first network, of the frames that the second gets."""
        trim, (left, right) = self._first.trim, self._cut
        end = magnitude.shape[1] - right * context[1]
        if handover and context[1]:  # before it waits for another
            handover.promise(left * context[0], end)
        elif handover:
            handover.refuse()
        start, stop = handover.promised() if handover and context[0] else (0, 0)
        # So many frames need not be heard, as masks come from the window before. Its last ones, and the first that are
        # found here, lack a little context: so they overlap by a stride, and the seam lies in its middle.
        known = stop - self._stride - left if start <= left < stop - self._stride < end - self._stride else 0
        found = self._first(magnitude[:, known:], spectrum[:, known:], context)
        found = _within(found, (left - trim[0], right - trim[1]), context)
        if handover and known:
            half = self._stride // 2
            found = np.concatenate([handover.known(left, left + known + half), found[:, :, half:]], axis=2)
        if handover and context[1]:
            handover.hand_on(found)
        return found


def open_network(folder: ModelFolder, settings: Settings, options: RunnerOptions) -> Network:
    """Open the graph of a model; behind that of another model, where the manifest names one as ``files.first``.

    Raises
    ------
    ModelError
        If a graph cannot be used, or the other model is missing, of another version, or does not fit this one.
    """
    content, manifest = folder.read("model"), folder.manifest
    if FIRST not in manifest.files:
        return Graph(content, manifest, settings, options)
    first_content, owner = folder.read(FIRST), folder.owner(FIRST)
    _check_first(folder, owner.manifest)
    first = Graph(first_content, owner.manifest, read_settings(owner), options)
    second = Graph(content, manifest, settings, options, done=len(masked_stems(owner.manifest)))
    return Cascade(first, second, settings.stride, settings.phases)


def _check_first(folder: ModelFolder, first: Manifest) -> None:
    """Raise `ModelError` unless the model ``first`` can run before the one in ``folder``."""
    masked = masked_stems(first)
    expected, found = _traits(folder.manifest), _traits(first)
    wrong = [f"{key} {found[key]!r}, {value!r} expected" for key, value in expected.items() if found[key] != value]
    if FIRST in first.files:
        wrong.insert(0, "it runs after another model itself")
    if masked_stems(folder.manifest)[: len(masked)] != masked:
        wrong.append(f"its stems {', '.join(masked)} do not come first")
    if wrong:
        raise ModelError(f"{folder.path}: cannot run after '{first.name}': {wrong[0]}. Reinstall both models.")


def _traits(manifest: Manifest) -> dict[str, Any]:
    """What two networks in a row must have in common."""
    return {
        "family": manifest.family,
        "sample_rate": manifest.sample_rate,
        "channels": manifest.channels,
        **{key: manifest.settings.get(key) for key in ("fft", "stft_hop", "bins", "stride")},
    }


def masked_stems(manifest: Manifest) -> list[str]:
    """The stems that get a mask; the residual one gets what they leave."""
    return [stem for stem in manifest.stems if stem != manifest.residual]


def read_settings(folder: ModelFolder) -> Settings:
    """Read ``[settings]`` of a model; raises `ModelError`."""
    return validated(Settings, folder.manifest.settings, folder)


def validated(schema: type[Table], table: dict[str, Any], folder: ModelFolder) -> Table:
    """Check a table of a model's manifest; raises `ModelError`."""
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise ModelError(f"{folder.path}: {where}: {first['msg']}. Correct it or reinstall.") from None


def _within(array: NDArray[Number], margins: Margins, context: Context) -> NDArray[Number]:
    """Leave out the margins of (..., frames, bins) on the sides that are context."""
    return array[..., margins[0] * context[0] : array.shape[-2] - margins[1] * context[1], :]
