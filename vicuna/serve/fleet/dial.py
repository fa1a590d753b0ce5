"""A worker's connection to a controller: dialled again whenever it ends.

Before: `worker`, which exchanges the frames. After: `link`, the controller's end. The worker ends where dialling again
would not help: the controller refuses its token, speaks another protocol, or says that the worker hung.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from vicuna.errors import UsageError, VicunaError, require
from vicuna.io.log import info, warning
from vicuna.io.secrets import Secret
from vicuna.serve import auth
from vicuna.serve.fleet.protocol import CLOSE_HUNG, CLOSE_PROTOCOL, CONNECT_PATH, MAX_FRAME_BYTES, MODEL_HEADER

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0


async def dial(url: str, token: Secret, model: str, converse: Callable[[Any], Awaitable[None]]) -> None:
    """Keep a connection to one controller until cancelled.

    Args:
        token: the join token of the cluster.
        model: the name of the worker's model.
        converse: exchanges frames over an open connection until it ends.

    Raises:
        VicunaError: the controller refuses this worker, for one of the reasons above.
    """
    websockets = require("websockets", "serve")
    address = socket_url(url)
    headers = {"Authorization": f"Bearer {token.reveal()}", MODEL_HEADER: model}
    wait = FIRST_RETRY_SECONDS
    while True:
        try:
            async with websockets.connect(
                address,
                additional_headers=headers,
                proxy=None,  # the cluster's own traffic: HTTP_PROXY is not meant for it
                compression=None,
                max_size=MAX_FRAME_BYTES,
                ping_interval=None,
                open_timeout=10,
                close_timeout=1,
            ) as websocket:
                wait = FIRST_RETRY_SECONDS
                await converse(websocket)
                code, reason = websocket.close_code, websocket.close_reason
                if code == CLOSE_HUNG:
                    raise VicunaError(f"controller {url} says that this worker hung; ending it")
                if code == CLOSE_PROTOCOL:
                    raise VicunaError(
                        f"controller {url} does not understand this worker ({reason}); run equal versions"
                    )
                warning(f"the connection to controller {url} ended; dialling again")
        except websockets.InvalidStatus as error:
            if error.response.status_code in (401, 403):
                raise VicunaError(
                    f"controller {url} refused the join token for model '{model}'; set {auth.JOIN_TOKEN}"
                ) from None
            info(f"controller {url} answered {error.response.status_code}; dialling again in {wait:.1f} s")
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            info(f"controller {url} cannot be reached ({error}); dialling again in {wait:.1f} s")
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(wait * 2, LAST_RETRY_SECONDS)


def socket_url(url: str) -> str:
    """The WebSocket address behind a controller's URL.

    Raises:
        UsageError: it is not an http(s) or ws(s) URL.
    """
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        is_address = False
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme) if is_address else None
    if scheme is None:
        raise UsageError(f"--controller {url}: give a URL such as http://127.0.0.1:8000")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{CONNECT_PATH}"
