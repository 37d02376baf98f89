"""The banks, kits and instruments that songs are played with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

SF2, HYDROGEN = Path("/usr/share/sounds/sf2"), Path("/usr/share/hydrogen/data/drumkits")
FLUID, TIM = SF2 / "FluidR3_GM.sf2", SF2 / "TimGM6mb.sf2"
OPL, CSOUND = SF2 / "OPL-3_FM_128M.sf2", SF2 / "sf_GMbank.sf2"


@dataclass(frozen=True)
class Sound:
    """A bank, kit or instrument: how often it is taken, and what plays it."""

    name: str
    weight: float
    licence: str
    kind: str  # fluid, kit0 (bank whose kit is at bank 0 program 0), hydrogen, electro, sampled, synth; see VOICES
    path: Path = Path("/")  # below the material, or absolute; what is made here needs none
    programs: tuple[int, ...] = (0,)
    only: str = ""  # the one split it may be heard in
    octave: int = 0


FLUID_R3 = Sound("FluidR3", 5, "MIT", "fluid", FLUID)
BANKS = [
    FLUID_R3,
    Sound("TimGM6mb", 2, "GPL-2", "fluid", TIM),
    Sound("csound GM", 0.8, "LGPL-2.1+", "fluid", CSOUND),
    Sound("OPL-3 FM", 0.4, "CC BY-SA 4.0", "fluid", OPL),
]
DRUMS = [
    Sound("FluidR3 kits", 3, "MIT", "fluid", FLUID, (0, 8, 16, 32, 40)),
    Sound("FluidR3 electronic kits", 0.7, "MIT", "fluid", FLUID, (24, 25, 48)),
    Sound("TimGM6mb kits", 0.8, "GPL-2", "fluid", TIM, (0, 0, 8, 16, 25)),
    Sound("csound GM kit", 0.4, "LGPL-2.1+", "fluid", CSOUND),
    Sound("OPL-3 FM kit", 0.5, "CC BY-SA 4.0", "fluid", OPL),
    Sound("AVL Black Pearl", 2.2, "CC BY-SA 3.0", "kit0", SF2 / "Black_Pearl_4_LV2.sf2"),
    Sound("AVL Red Zeppelin", 6, "CC BY-SA 3.0", "kit0", SF2 / "Red_Zeppelin_4_LV2.sf2", only="valid"),
    Sound("Hydrogen BJA_Pacific", 6, "CC BY-SA 3.0", "hydrogen", HYDROGEN / "BJA_Pacific", only="valid"),
    Sound("electro", 1.2, "CC0", "electro"),
] + [
    Sound(f"Hydrogen {name}", weight, licence, "hydrogen", HYDROGEN / name)
    for name, weight, licence in [
        ("ForzeeStereo", 1.6, "GPL-2"),
        ("GMRockKit", 1.4, "GPL-2"),
        ("The Black Pearl 1.0", 1.2, "GPL-2"),
        ("Millo_MultiLayered2", 0.9, "GPL-2"),
        ("Millo_MultiLayered3", 0.9, "GPL-2"),
        ("Millo-Drums_v.1", 0.5, "GPL-2"),
        ("ColomboAcousticDrumkit", 0.9, "GPL-2+"),
        ("rumpf_kit_z01_h2", 0.4, "CC BY 3.0"),
        ("Audiophob", 0.4, "CC0"),
        ("TR808EmulationKit", 0.4, "GPL-2+"),
        ("HardElectro1", 0.25, "GPL-2+"),
        ("ElectricEmpireKit", 0.25, "GPL-2+"),
        ("VariBreaks", 0.25, "GPL-2+"),
    ]
]
BASSES = [
    Sound("Yamaha finger", 2, "CC0", "sampled", Path("bass-yr/FingerBassYR 20190930.sfz")),
    Sound("Yamaha pick", 1.6, "CC0", "sampled", Path("bass-yr/PickedBassYR 20190930.sfz")),
    Sound("Growlybass", 1.1, "CC0", "sampled", Path("bass-growly/sustain")),
    Sound("Growlybass staccato", 0.3, "CC0", "sampled", Path("bass-growly/staccato")),
    Sound("Killer Bass", 6, "CC0", "sampled", Path("bass-killer/034-Electric Bass (finger).sfz"), only="valid"),
    Sound("synth bass", 2, "own", "synth"),
] + [replace(bank, weight=bank.weight * 0.36, programs=(32, 32, *range(32, 40))) for bank in BANKS]  # upright thrice
ELECTRIC_GUITAR = Sound("FSFT Telecaster", 1.5, "GPL-3+", "sampled", Path("electric-guitar-fsft"), octave=1)
KEYS = [
    Sound("Wurlitzer EP200", 1, "CC BY 3.0", "sampled", Path("wurlitzer-ep200/Wurlitzer EP200/Wurlitzer EP200.sfz")),
    Sound("Rhodes GM", 1, "CC0", "sampled", Path("rhodes-gm/005-Electric Piano 1.sfz")),
    Sound("Martin steel guitar", 1.5, "CC0", "sampled", Path("steel-guitar-gm/026-Acoustic Guitar (steel).sfz")),
    Sound(
        "classical guitar", 1, "CC0", "sampled", Path("spanish-classical-guitar/SpanishClassicalGuitar-20190618.sfz")
    ),
    ELECTRIC_GUITAR,
]
SYNTH = Sound("synth", 0.01, "own", "synth")

ASTERISK, PROGRAMS = Path("/usr/share/asterisk/sounds"), Path("/usr/bin")
VOICES = [  # recorded, or the program that speaks; no speaker is heard in both splits
    Sound("Asterisk en Allison", 0.9, "CC BY-SA 3.0", "recorded", ASTERISK / "en_US_f_Allison", only="train"),
    Sound("Asterisk es Allison", 0.9, "CC BY-SA 3.0", "recorded", ASTERISK / "es_MX_f_Allison", only="train"),
    Sound("Asterisk it Carlo", 1.7, "CC BY 3.0", "recorded", ASTERISK / "it_IT_m_Carlo", only="train"),
    Sound("Asterisk ru", 1.5, "CC BY 3.0", "recorded", ASTERISK / "ru_RU_f_IvrvoiceRU", only="train"),
    Sound("Asterisk fr June", 5, "CC BY-SA 3.0", "recorded", ASTERISK / "fr_CA_f_June", only="valid"),
    Sound("flite slt", 1.2, "BSD", "flite", PROGRAMS / "flite", only="train"),
    Sound("flite awb", 1.2, "BSD", "flite", PROGRAMS / "flite", only="train"),
    Sound("flite kal16", 0.6, "BSD", "flite", PROGRAMS / "flite", only="train"),
    Sound("flite rms", 3, "BSD", "flite", PROGRAMS / "flite", only="valid"),
    Sound("eSpeak NG", 1, "GPL-3+", "espeak", PROGRAMS / "espeak-ng", only="train"),
]
