"""HTTP connections that neither wait for a slow client for ever nor hang up on one that has sent its whole request."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_TIMEOUT_S = 30.0


class Protocol(H11Protocol):
    """uvicorn's protocol, which by itself waits for the head of a request without an end."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins to wait for a head."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Stops waiting when the head is complete, and begins again with the next request."""
        super().data_received(data)
        self._wait_for_head()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for the answer, uvicorn gives none
        """Keeps a connection open on which a whole request has come and its answer has not gone yet."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        is_complete = self.conn.their_state is not h11.IDLE
        if self._timer and is_complete:
            self._timer.cancel()
            self._timer = None
        elif not self._timer and not is_complete:
            self._timer = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)
