"""What one window hands on to the next, where they overlap."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future

from stemplug.models.transform import Array


class Handover:
    """By it a window takes masks that the one before it has found, and hands on its own.

    Windows may be at work at the same time, on a thread each, if they have begun in order: one waits for the other.

    Parameters
    ----------
    before:
        That of the window before, if that is separated as well.
    after:
        By how many samples the window begins later than that one.
    """

    def __init__(self, before: Handover | None, after: int) -> None:
        self._before, self._after = before, after
        self._hop, self._first = 1, 0
        self._span: Future[tuple[int, int]] = Future()
        self._masks: Future[Array] = Future()

    def count(self, hop: int, first: int) -> None:
        """Frames are those of a transform with that hop, counted from the ``first`` one of the window on."""
        self._hop, self._first = hop, first

    def promise(self, start: int, stop: int) -> None:
        """Tell that masks of the frames from ``start`` to before ``stop`` will be handed on."""
        self._span.set_result(((self._first + start) * self._hop, (self._first + stop) * self._hop))

    def hand_on(self, masks: Array) -> None:
        """Give the next window the masks (..., frames, bins) that were promised."""
        self._masks.set_result(masks)

    def refuse(self) -> None:
        """Tell that no more than is known by now will be handed on."""
        self._span.cancel()
        self._masks.cancel()

    def close(self, _: object = None) -> None:
        """The window has ended, or will not begin: nobody waits for it, and it needs the one before no more."""
        self.refuse()
        before, self._before = self._before, None  # else a chain of them would hold on to the masks of a whole song
        if before:
            before._masks = Future()

    def promised(self) -> tuple[int, int]:
        """The frames of which there will be masks from the window before, from the first to before the last; or 0, 0.

        They may lie outside of this window.
        """
        try:
            span = self._before._span.result() if self._before else None
        except CancelledError:  # it was silent where they overlap, or it failed, which its stream tells
            span = None
        start, stop = ((at - self._after) // self._hop - self._first for at in span) if span else (0, 0)
        return start, stop

    def known(self, start: int, stop: int) -> Array:
        """Those masks, of some of the promised frames. Raises `CancelledError` if the window before failed."""
        assert self._before is not None, "promised() tells"
        origin, _ = self.promised()
        return self._before._masks.result()[..., start - origin : stop - origin, :]
