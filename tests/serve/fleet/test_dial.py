"""A worker's connection to its controller: where it dials, and when it dials again or ends."""

import asyncio

import pytest

from tests.serve.conftest import JOIN_TOKEN, start_cluster
from vicuna.errors import UsageError, VicunaError
from vicuna.io.secrets import Secret
from vicuna.serve.auth import token_for_model
from vicuna.serve.fleet.dial import socket_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", "ws://host:8000/worker/connect"),
        ("https://host/base/", "wss://host/base/worker/connect"),
        ("host:8000", "ws://host:8000/worker/connect"),
    ],
)
def test_a_controller_s_url_becomes_its_socket(url: str, expected: str) -> None:
    assert socket_url(url) == expected


def test_what_is_no_controller_s_url() -> None:
    with pytest.raises(UsageError, match="give a URL such as"):
        socket_url("ftp://host")


@pytest.mark.parametrize("token", [Secret("wrong"), token_for_model(JOIN_TOKEN, "other")])
async def test_a_worker_without_the_right_token_is_refused(token: Secret) -> None:
    async with start_cluster() as cluster:
        task = await cluster.add_worker(token=token)
        with pytest.raises(VicunaError, match="refused the join token for model 'sim'; set VICUNA_JOIN_TOKEN"):
            await asyncio.wait_for(task, 5)
        assert cluster.fleet.links == []
        await cluster.add_worker(token=token_for_model(JOIN_TOKEN, "sim"))
        assert len(cluster.fleet.links) == 1


async def test_a_worker_dials_again_when_its_connection_ends() -> None:
    async with start_cluster() as cluster:
        task = await cluster.add_worker()
        [link] = cluster.fleet.links
        link.close()
        await cluster.until(lambda: link not in cluster.fleet.links and len(cluster.fleet.links) == 1)
        assert (await cluster.chat()).choices[0].message.content
        assert not task.done()
