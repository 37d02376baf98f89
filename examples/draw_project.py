"""Draw the tracks of a REAPER project that ``stemplug split --as reaper`` wrote, as an SVG picture.

``python examples/draw_project.py PROJECT.rpp -o PICTURE.svg``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile

from stemplug.tracks.reaper import read_reaper

LABEL, WIDTH, HEIGHT, RULER = 150, 900, 72, 24  # pixels


def outline(audio: np.ndarray, columns: int) -> str:
    """The loudest samples up and down in each column, as the points of a polygon around 0, a column 1 wide."""
    pieces = np.array_split(audio, columns)
    high = [(x, -max(0.0, float(piece.max(initial=0)))) for x, piece in enumerate(pieces)]
    low = [(x, -min(0.0, float(piece.min(initial=0)))) for x, piece in enumerate(pieces)]
    return " ".join(f"{x},{y:.3f}" for x, y in [*high, *low[::-1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    project = read_reaper(options.project)
    begin, seconds = project.position / project.sample_rate, project.frames / project.sample_rate
    total = RULER + HEIGHT * len(project.tracks)
    shapes = [f'<rect width="{LABEL + WIDTH}" height="{total}" fill="#2b2b2e"/>']
    step = max(1, round(seconds / 8))
    for second in range(0, int(seconds) + 1, step):
        x = LABEL + WIDTH * second / seconds
        shapes.append(f'<text x="{x + 3:.0f}" y="16" fill="#aaa">{begin + second:.0f} s</text>')
        shapes.append(f'<path d="M{x:.1f} 0V{total}" stroke="#444"/>')
    media = [options.project.parent / track.media for track in project.tracks]
    audio = [soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1) for path in media]
    scale = (HEIGHT / 2 - 3) / max(1e-9, *(float(np.abs(samples).max(initial=0)) for samples in audio))
    for number, track in enumerate(project.tracks):
        color, y = "#{:02x}{:02x}{:02x}".format(*track.color), RULER + HEIGHT * number
        shapes += [
            f'<rect y="{y}" width="{LABEL - 4}" height="{HEIGHT - 3}" fill="{color}"/>',
            f'<text x="10" y="{y + HEIGHT / 2 + 4:.0f}" fill="#111" font-weight="bold">{escape(track.name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{WIDTH}" height="{HEIGHT - 3}" fill="{color}" fill-opacity="0.25"/>',
            f'<g transform="translate({LABEL} {y + HEIGHT / 2 - 1.5}) scale(1 {scale:.3f})">'
            f'<polygon points="{outline(audio[number], WIDTH)}" fill="{color}"/></g>',
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABEL + WIDTH} {total}" font-family="sans-serif"'
    options.output.write_text(f'{head} font-size="13">\n' + "\n".join(shapes) + "\n</svg>\n", encoding="utf-8")


if __name__ == "__main__":
    main()
