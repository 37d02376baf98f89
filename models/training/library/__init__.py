"""Where the training songs come from.

Each of ``sources`` gives jobs (see ``songs``). Most are scores, which ``performance`` plays with what ``sounds`` lists,
through ``effects``. What plays is FluidSynth (``midi``), ``samples``, ``kits`` or ``synthesizer``;
songs of trackers bring their sounds along, and libopenmpt plays them (``tracker``).

Everything random comes from the generator of the song's studio, in an order that must not change: another order of
draws makes another library of the same seed.
"""
