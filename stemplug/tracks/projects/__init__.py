"""Projects that exist: stems of a track of theirs, and nothing else of them changed."""
