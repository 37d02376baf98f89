"""Score a model on a set of songs with true stems; beside it, on request, the original Spleeter.

    python models/training/evaluate.py SET [--model NAME] [--live LATENCY] [--original CHECKPOINTS] [--below HERTZ]
        [--json FILE]

SET is a folder of songs, each a folder of FLAC stems at 44.1 kHz, such as the project's evaluation set; the mixture is
their sum. Prints SDR in dB over the whole clip and both channels, 10 log10(sum ref^2 / sum (ref - est)^2), of each stem
against the truth, where the residual stem is compared with all that no other stem is named for. Of a song that has no
vocals it tells how loud they come out nevertheless, in dB against the mixture ("leak").

``--below`` also tells which share of the error's energy lies below a frequency.

``--original`` also runs the networks as published, from the checkpoints that import_spleeter.py reads (needs PyTorch):
blocks of 512 frames without overlap, mask power 2, nothing above 11 kHz.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from stemplug import Separator
from stemplug.audio import Audio

RATE = 44100


def songs(folder: Path) -> Iterator[tuple[str, dict[str, Audio]]]:
    """Yield names and true stems, (channels, frames)."""
    for song in sorted(path for path in folder.iterdir() if path.is_dir()):
        stems = {}
        for file in sorted(song.glob("*.flac")):
            audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
            assert rate == RATE, f"{file}: {rate} Hz"
            stems[file.stem] = np.repeat(audio, 2 // audio.shape[1], axis=1).T
        if stems:
            yield song.name, stems


def sdr(true: Audio, estimate: Audio) -> float:
    error = np.sum((true.astype(np.float64) - estimate) ** 2)
    return float(10 * np.log10((np.sum(true.astype(np.float64) ** 2) + 1e-12) / (error + 1e-12)))


def references(true: dict[str, Audio], estimates: dict[str, Audio], residual: str) -> dict[str, Audio]:
    """What estimates are compared with, by stem; stems that the song does not have are left out."""
    rest = sum(audio for name, audio in true.items() if name == residual or name not in estimates)
    found = {name: true[name] for name in estimates if name in true and name != residual}
    return found | {residual: np.asarray(rest, np.float32)}


def score(true: dict[str, Audio], estimates: dict[str, Audio], residual: str) -> dict[str, float]:
    """SDR by stem."""
    return {name: sdr(stem, estimates[name]) for name, stem in references(true, estimates, residual).items()}


def leak(true: dict[str, Audio], estimates: dict[str, Audio]) -> dict[str, float]:
    """How loud vocals come out, in dB against the mixture, where there are none to find."""
    if "vocals" in true or "vocals" not in estimates:
        return {}
    power = [np.square(audio, dtype=np.float64).sum() + 1e-12 for audio in (estimates["vocals"], sum(true.values()))]
    return {"leak": float(10 * np.log10(power[0] / power[1]))}


def errors_below(hertz: float, true: dict[str, Audio], estimates: dict[str, Audio], residual: str) -> dict[str, float]:
    """The share of the error's energy that lies below a frequency, 0 to 1, by stem."""
    shares = {}
    for name, stem in references(true, estimates, residual).items():
        power = (np.abs(np.fft.rfft(stem - estimates[name])) ** 2).sum(axis=0)
        shares[f"{name} below"] = float(power[: round(hertz * stem.shape[1] / RATE)].sum() / (power.sum() + 1e-12))
    return shares


def original(checkpoints: Path, mixture: Audio) -> dict[str, Audio]:
    """Spleeter as published: (channels, frames) to its two stems."""
    import torch
    from import_spleeter import CHECKPOINTS, load, reference

    frames = 1 + mixture.shape[1] // 1024
    padded = np.pad(mixture, ((0, 0), (2048, 4096)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 4096, axis=1)[:, ::1024][:, :frames]
    window = np.hanning(4097)[:-1]
    spectrum = np.fft.rfft(pieces * window)
    magnitude = np.zeros((2, -(-frames // 512) * 512, 1024), np.float32)
    magnitude[:, :frames] = np.abs(spectrum[..., :1024])
    blocks = torch.from_numpy(magnitude.reshape(2, -1, 512, 1024).swapaxes(0, 1).copy())
    networks = [load(checkpoints / name) for name in CHECKPOINTS.values()]
    with torch.no_grad():
        mask = reference(networks, blocks, power=2).numpy().swapaxes(0, 1).reshape(magnitude.shape)[:, :frames]
    stems = {}
    for name, share in zip(CHECKPOINTS, (mask, 1 - mask), strict=True):
        audio, weight = np.zeros(padded.shape), np.full(padded.shape[1], 1e-9)
        for index, piece in enumerate(
            np.fft.irfft(np.pad(spectrum[..., :1024] * share, ((0, 0), (0, 0), (0, 1025)))).swapaxes(0, 1)
        ):
            at = slice(index * 1024, index * 1024 + 4096)
            audio[:, at] += piece * window
            weight[at] += window**2
        stems[name] = (audio / weight)[:, 2048 : 2048 + mixture.shape[1]].astype(np.float32)
    return stems


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--live", metavar="LATENCY", help="low, balanced or high, instead of the profile offline")
    parser.add_argument("--original", type=Path, metavar="CHECKPOINTS")
    parser.add_argument("--below", type=float, metavar="HERTZ")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    separator = Separator(args.model, "live" if args.live else "offline", latency=args.live)
    if args.live:
        milliseconds = 1000 * separator.stream(RATE).latency_samples / RATE
        print(f"live, {args.live}: {milliseconds:.0f} ms at {RATE} Hz\n")
    table: dict[str, dict[str, float]] = {}
    for name, true in songs(args.set):
        mixture = np.sum(list(true.values()), axis=0)
        stems = separator.separate(mixture, RATE)
        row = score(true, dict(stems), separator.manifest.residual) | leak(true, dict(stems))
        row["sum error"] = float(np.abs(stems.sum() - mixture).max())
        if args.below:
            row |= errors_below(args.below, true, dict(stems), separator.manifest.residual)
        if args.original:
            scores = score(true, original(args.original, mixture), "accompaniment")
            row |= {f"original {stem}": value for stem, value in scores.items()}
        table[name] = row
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    medians = {c: float(np.median([row[c] for row in table.values() if c in row])) for c in columns}
    print(f"| {'song':24} |" + "".join(f" {column} |" for column in columns))
    print("|---|" + "---|" * len(columns))
    for name, row in {**table, "median": medians}.items():
        cells = (f"{row[c]:.1e}" if c == "sum error" else f"{row[c]:.2f}" if c in row else "-" for c in columns)
        print(f"| {name:24} |" + "".join(f" {cell} |" for cell in cells))
    if args.json:
        args.json.write_text(json.dumps({"songs": table, "medians": medians}, indent=1) + "\n")


if __name__ == "__main__":
    main()
