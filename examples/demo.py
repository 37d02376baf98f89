"""Split a song and tell what came out: ``python examples/demo.py [SONG]``.

Without SONG, the 6-second example of the PyPI package stempeg is split, and the stems are compared with the true ones
that it carries.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import av
import numpy as np
import soundfile

import stemplug

OUTPUT = Path("stems")


def example_song() -> Path:
    """The song inside the package stempeg: five streams, the mixture and its drums, bass, other and vocals."""
    spec = importlib.util.find_spec("stempeg")
    if spec is None or spec.origin is None:
        raise SystemExit("The example song is in the package stempeg: pip install 'stemplug[demo]', or name a SONG.")
    return next(Path(spec.origin).parent.glob("data/*.stem.mp4"))


def true_stems(path: Path) -> dict[str, np.ndarray]:
    """The true stems, (channels, frames)."""
    streams = []
    for index in range(1, 5):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=index)]
        streams.append(np.concatenate(frames, axis=1))
    return dict(zip(("drums", "bass", "other", "vocals"), streams, strict=True))


def sdr(true: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-distortion ratio in dB: energy of the truth over energy of the error."""
    return float(10 * np.log10(np.sum(true**2) / np.sum((true - estimate) ** 2)))


def main() -> None:
    song = Path(sys.argv[1]) if len(sys.argv) > 1 else example_song()
    separator = stemplug.Separator()
    start = time.perf_counter()
    result = stemplug.split(song, OUTPUT, separator=separator, options=stemplug.FolderFormat(overwrite=True))
    elapsed = time.perf_counter() - start
    print(f"{song.name}: {result.seconds:.1f} s of music in {elapsed:.2f} s with {separator.manifest.name}")
    truth = true_stems(song) if song == example_song() else {}
    for track, path in zip(result.tracks, result.paths, strict=True):
        line = f"  {path}: level {track.level_db:.1f} dBFS, peak {track.peak_db:.1f} dBFS"
        if track.stem in truth:
            estimate = soundfile.read(path, dtype="float32")[0].T
            true = truth[track.stem]
            frames = min(estimate.shape[1], true.shape[1])
            line += f", SDR {sdr(true[:, :frames], estimate[:, :frames]):.2f} dB"
        print(line)


if __name__ == "__main__":
    try:
        main()
    except stemplug.StemPlugError as error:
        raise SystemExit(f"demo: {error}") from None
