"""The server of the channels target: a consumer that is in its user's group, as who notifies a user would have it.

The channel layer keeps a group in Redis as a sorted set, which is there as long as anyone is in it. Served by Daphne.
Redis comes by the environment.
"""

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # redis-py 8 gives a silent socket up after 5 s, and channels-redis waits for messages for just as long.
            "CONFIG": {"hosts": [{"address": os.environ["REDIS_URL"], "socket_timeout": 30}]},
        }
    }
)
django.setup()


class Presence(AsyncWebsocketConsumer):  # type: ignore[misc]  # untyped upstream
    """One client: in the group of its name from its connection to its end."""

    async def connect(self) -> None:
        """Be there."""
        self.client = self.scope["query_string"].decode().partition("client=")[2]
        await self.channel_layer.group_add(f"user.{self.client}", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Be gone."""
        await self.channel_layer.group_discard(f"user.{self.client}", self.channel_name)
        print(f"gone {self.client} {code}", flush=True)


application = ProtocolTypeRouter({"websocket": Presence.as_asgi()})
