"""News of commits between command servers on one log. They save waiting and decide nothing: each server also looks."""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.msg import Msg

from cqrs.broker.connection import BrokerConnection
from cqrs.subjects import committed_subject


class CommitNews:
    """Tells other processes how far the log has got, and hears it from them. What gets lost does no harm."""

    def __init__(self, broker: BrokerConnection, prefix: str, on_news: Callable[[int], None]) -> None:
        """Tell and hear over `broker`; `on_news` is told each position that is heard, also this process's own."""
        self._broker = broker
        self._subject = committed_subject(prefix)
        self._on_news = on_news
        self._listening = False

    async def listen(self) -> None:
        """Hear from here on. To be called once the broker has been connected; again does nothing."""
        if not self._listening:
            await self._broker.client.subscribe(self._subject, cb=self._hear)
            self._listening = True

    async def tell(self, position: int) -> None:
        """The log has got to `position`, unless the broker is away."""
        if self._broker.connected:
            await self._broker.client.publish(self._subject, str(position).encode())

    async def _hear(self, message: Msg) -> None:
        if message.data.isdigit():
            self._on_news(int(message.data))
