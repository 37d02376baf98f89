"""What a session file may say. Knows no audio; what the fields mean together is judged in `stemplug.session.plan`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from stemplug.errors import unknown

SONG = "$song"
"""Stands in a clip for each of the session's ``songs`` in turn."""
MASTER = "master"
VOCALS = "vocals"

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\w[\w -]*$", max_length=64)]
Beats: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)? beats?$")]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=7200, allow_inf_nan=False)]
Time: TypeAlias = Seconds | Beats
Decibels: TypeAlias = Annotated[float, Field(ge=-120, le=24, allow_inf_nan=False)]
Balance: TypeAlias = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Effect: TypeAlias = str | dict[str, Any] | None


class Part(BaseModel):
    """A part of a session: no unknown keys, no conversion from one type to another."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    "unknown_key", "{text}", {"text": unknown("field", key, cls.model_fields), "key": key}
                )
        return data


class GainPoint(Part):
    """The gain at a time; between two points it moves on a straight line in dB."""

    at: Time
    db: Decibels


class PanPoint(Part):
    """The balance at a time; between two points it moves on a straight line."""

    at: Time
    pan: Balance


class Note(Part):
    """A MIDI note, timed from the start of its clip."""

    note: int = Field(ge=0, le=127)
    velocity: int = Field(default=100, ge=1, le=127)
    at: Time
    length: Time


class Clip(Part):
    """Audio, or MIDI for the track's instrument, from a time on."""

    file: str | None = Field(default=None, description=f"An audio file, or {SONG}: each of the session's songs.")
    midi: str | None = Field(default=None, description="A MIDI file; its own tempo holds.")
    notes: list[Note] = Field(default=[], max_length=10_000)
    at: Time = 0
    start: Seconds = Field(default=0, description="Seconds into the file where the clip begins.")
    length: Time | None = Field(default=None, description="How much is heard; by default all of it.")
    gain_db: Decibels = 0
    fade_in: Seconds = 0
    fade_out: Seconds = 0


class Instrument(Part):
    """What plays the MIDI clips of a track: Faust code with freq, gain and gate, or a VST3 plugin."""

    faust: str | None = Field(default=None, description="Faust code.")
    voices: int = Field(default=8, ge=1, le=64, description="Polyphony of Faust code.")
    vst3: str | None = Field(default=None, description="Path of a plugin.")
    preset: str | None = Field(default=None, description="A .vstpreset file.")
    parameters: dict[str, float] = {}


class Strip(Part):
    """Effects, fader, and where the sound goes."""

    effects: list[Effect] = Field(default=[], max_length=64, description="Stages as in a saved chain, Faust or VST3.")
    gain_db: Decibels | Annotated[list[GainPoint], Field(min_length=1)] = 0
    pan: Balance | Annotated[list[PanPoint], Field(min_length=1)] = 0
    mute: bool = False


class Routed(Strip):
    """A strip with sends."""

    sends: dict[str, Decibels] = Field(default={}, description="Bus: gain in dB, after the fader.")


class Split(Part):
    """Takes the strip's sound apart behind its effects; each stem is a strip, and the sum goes to the strip's fader."""

    model: str = "default"
    stems: dict[str, Routed] = {}


class Bus(Routed):
    """A sum of what is sent to it."""

    output: str = MASTER
    split: Split | None = None


class Track(Bus):
    """Clips, and what becomes of them."""

    clips: list[Clip] = Field(min_length=1, max_length=512)
    instrument: Instrument | None = None
    role: Literal["vocals", "instrumental"] = "instrumental"


class Loudness(Part):
    """The level of a deliverable."""

    lufs: float = Field(ge=-70, le=0, description="Integrated loudness, LUFS (ITU-R BS.1770).")
    true_peak_db: float = Field(default=-1, ge=-30, le=0, description="Ceiling in dBTP, at 4 times oversampling.")
    limiter_db: float = Field(
        default=6, ge=0, le=20, description="By how much peaks may be limited to reach the loudness; 0: never."
    )


class Deliverable(Part):
    """A file to be written, or for stems one a strip."""

    of: Literal["mix", "stems", "instrumental", "acappella"] = "mix"
    format: Literal["wav", "flac", "ogg", "mp3"] = "wav"
    bit_depth: Literal["16", "24", "32f"] | None = None
    dither: bool = Field(default=True, description="Triangular dither when going to 16 bit.")
    loudness: Loudness | None = None


class Session(Part):
    """A mix-down: tracks, buses, a master, and the files to be made of them."""

    version: Literal[1]
    tempo: float = Field(default=120, ge=10, le=1000, description="Quarter notes a minute.")
    sample_rate: int = Field(default=44100, ge=8000, le=192000)
    length: Time | None = Field(default=None, description="By default up to the end of the last clip.")
    tail: Seconds = Field(default=0, description="Seconds after the last clip, for reverbs.")
    songs: list[str] = Field(default=[], max_length=256, description=f"The whole is rendered for each, see {SONG}.")
    tracks: dict[Name, Track] = Field(min_length=1, max_length=128)
    buses: dict[Name, Bus] = Field(default={}, max_length=128)
    master: Strip = Strip()
    deliverables: dict[Name, Deliverable] = Field(min_length=1, max_length=64)

    def seconds(self, time: float | str) -> float:
        """A `Time` in seconds, by the session's tempo."""
        return float(time.split()[0]) * 60 / self.tempo if isinstance(time, str) else float(time)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of session files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Session.model_json_schema()}
