"""``python -m stemplug``."""

from stemplug.cli import main

main()
