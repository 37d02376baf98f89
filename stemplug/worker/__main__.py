"""``python -m stemplug.worker [--detach]``: serve until nobody has asked for a minute."""

import os
import sys


def _detach() -> None:
    """Leave the host: a session of our own, no file of its, and no parent that would have to wait for us."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


if __name__ == "__main__":
    if "--detach" in sys.argv[1:]:
        _detach()
    from stemplug.worker.server import main

    sys.exit(main())
