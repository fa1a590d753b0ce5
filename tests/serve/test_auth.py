"""Join tokens, API keys, and the hosts to which a loopback server answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import Cluster, start_cluster
from tests.serve.programs import Program
from vicuna.errors import UsageError
from vicuna.io.secrets import Secret
from vicuna.serve import auth


def test_join_tokens_are_bound_to_their_model() -> None:
    secret = Secret("the controller's")
    token = auth.token_for_model(secret, "a").reveal()
    assert auth.may_join(secret, secret.reveal(), "anything") and auth.may_join(secret, token, "a")
    assert not auth.may_join(secret, token, "b") and not auth.may_join(secret, "", "a")


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VICUNA_JOIN_TOKEN", raising=False)
    with pytest.raises(UsageError, match="set VICUNA_JOIN_TOKEN"):
        auth.read_join_token()
    (tmp_path / "token").write_text("from a file\n")
    monkeypatch.setenv("VICUNA_JOIN_TOKEN_FILE", str(tmp_path / "token"))
    assert auth.read_join_token().reveal() == "from a file"
    with pytest.raises(UsageError, match="VICUNA_API_KEY"):
        auth.check_exposure("0.0.0.0", [])
    auth.check_exposure("127.0.0.1", [])
    auth.check_exposure("0.0.0.0", [b"a hash"])


async def test_a_key_is_needed_everywhere_once_there_is_one() -> None:
    async with start_cluster(api_keys=[auth._hash("right"), auth._hash("also right")]) as cluster:
        await cluster.add_worker()
        for path in ("/v1/models", "/v1/models/sim", "/v1/chat/completions", "/v1/completions", "/workers", "/new"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
                response = await cluster.http.get(path, headers=headers)
                assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        assert (await cluster.http.get("/healthz")).status_code == 200
        good = await cluster.http.get("/v1/models", headers={"authorization": "Bearer also right"})
        assert good.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_local_server_answers_to_local_names_only(cluster: Cluster) -> None:
    for host, status in (
        ("evil.example", 403),
        ("localhost:1", 200),
        ("[::1]:1", 200),
        ("127.0.0.1", 200),
        ("LOCALHOST", 200),
    ):
        response = await cluster.http.get("/v1/models", headers={"host": host})
        assert response.status_code == status, host


def test_a_token_file_that_cannot_be_read(start: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, words in ((tmp_path / "binary", "is not a text file"), (tmp_path, "it is a folder")):
        controller = start("vicuna.serve.controller", "--port", "0", VICUNA_JOIN_TOKEN_FILE=str(path))
        assert controller.process.wait(10) == 2
        assert controller.log.read_text().startswith(f"error: VICUNA_JOIN_TOKEN_FILE: {path}")
        assert words in controller.log.read_text()
