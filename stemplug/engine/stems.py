"""Stems: a song, or a piece of one, taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from stemplug.audio import Audio
from stemplug.errors import AudioError, OptionError, unknown

STEM_NAMES = ("vocals", "drums", "bass", "guitar", "piano", "other")


class Stems(Mapping[str, Audio]):
    """A mapping of stem name to float32 ``(channels, frames)``, all of one shape, with their ``sample_rate`` in Hz.

    Examples
    --------
    >>> import numpy as np
    >>> stems = Stems({"vocals": np.zeros((2, 8), np.float32), "accompaniment": np.ones((2, 8), np.float32)}, 44100)
    >>> stems.fold("vocals")
    Stems(vocals, instrumental; 2 channels, 8 frames, 44100 Hz)
    """

    def __init__(self, stems: Mapping[str, Audio], sample_rate: int) -> None:
        self._stems = dict(stems)
        self.sample_rate = sample_rate
        shapes = {name: stem.shape for name, stem in self._stems.items()}
        if not shapes or len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
            raise AudioError(f"stems of shapes {shapes}; expected at least one, all (channels, frames) alike.")

    def __getitem__(self, name: str) -> Audio:
        try:
            return self._stems[name]
        except KeyError:
            raise KeyError(unknown("stem", name, self._stems)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)

    def __repr__(self) -> str:
        names = ", ".join(self._stems)
        return f"Stems({names}; {self.channels} channels, {self.frames} frames, {self.sample_rate} Hz)"

    @property
    def channels(self) -> int:
        """Channels of every stem: those of the mixture."""
        return int(next(iter(self._stems.values())).shape[0])

    @property
    def frames(self) -> int:
        """Frames of every stem."""
        return int(next(iter(self._stems.values())).shape[1])

    def sum(self) -> Audio:
        """Return the sum of all stems, ``(channels, frames)``: the mixture, within 1e-6 of peak level."""
        first, *rest = self._stems.values()
        total = first.copy()
        for stem in rest:
            total += stem
        return total

    def fold(self, name: str) -> Stems:
        """Return two stems: ``name`` and the sum of all others.

        The other is called "instrumental" beside "vocals", else "no_NAME".

        Raises
        ------
        OptionError
            If there is no stem ``name``.
        """
        rest = folded_names(name, self._stems)[1]
        others = [stem for key, stem in self._stems.items() if key != name]
        total = np.zeros_like(self._stems[name])
        for stem in others:
            total += stem
        return Stems({name: self._stems[name], rest: total}, self.sample_rate)

    def only(self, names: Iterable[str]) -> Stems:
        """Return some of the stems, in the order of ``names``; raises `OptionError` for one that is not there."""
        chosen = list(names)
        for name in chosen:
            if name not in self._stems:
                raise OptionError(unknown("stem", name, self._stems))
        return Stems({name: self._stems[name] for name in chosen}, self.sample_rate)


def folded_names(name: str, stems: Iterable[str]) -> tuple[str, str]:
    """The names of the two stems that `Stems.fold` gives; raises `OptionError` if there is no stem ``name``."""
    known = list(stems)
    if name not in known:
        raise OptionError(unknown("stem", name, known))
    return name, "instrumental" if name == "vocals" else f"no_{name}"
