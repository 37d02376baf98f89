"""The worker: one process a user that separates for all instances of the VST3 plugin. See cpp_shim/PROTOCOL.md.

Light to import: ``python -m stemplug.worker --detach`` goes into the background before it loads anything.
"""
