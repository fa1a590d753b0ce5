"""A hub of our own on this machine: folders as repositories, in the few answers that the hub's library asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class FakeHub(ThreadingHTTPServer):
    """Serves folders as repositories, in the few answers of the hub that its library asks for."""

    daemon_threads = True

    def __init__(self, repositories: dict[tuple[str, str], Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories  # (id, commit) -> folder
        self.refusals: dict[str, tuple[int, str]] = {}  # id -> status and the hub's own code for it
        self.asked: list[str] = []

    def environment(self, cache: Path) -> dict[str, str]:
        """What sends the hub's library here.

        Args:
            cache: the folder of its cache.
        """
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_address[1]}",
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",  # the suite is offline elsewhere
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "no_proxy": "*",
        }

    def has_sent_weights(self) -> bool:
        """Whether anybody was given a file of weights."""
        return any("/resolve/" in path and path.endswith((".safetensors", ".bin")) for path in self.asked)


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, is_head: bool) -> None:
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.asked.append(path)
        for repository, (status, code) in self.server.refusals.items():
            if path.startswith((f"api/models/{repository}", f"{repository}/")):
                return self._refuse(status, code)
        for (repository, commit), folder in self.server.repositories.items():
            names = [name for name, sha in COMMITS.items() if sha == commit] + [commit]
            files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            for revision in names:
                if path in (f"api/models/{repository}/revision/{revision}", f"api/models/{repository}"):
                    siblings = [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()]
                    return self._json({"id": repository, "sha": commit, "siblings": siblings, "tags": []})
                if path == f"api/models/{repository}/tree/{revision}":
                    return self._json(
                        [
                            {"type": "file", "path": n, "size": f.stat().st_size, "oid": "0" * 40}
                            for n, f in files.items()
                        ]
                    )
                name = path.removeprefix(f"{repository}/resolve/{revision}/")
                if name in files:
                    return self._file(files[name].read_bytes(), commit, is_head=is_head)
        known = any(path.startswith(f"api/models/{repository}/") for repository, _ in self.server.repositories)
        return self._refuse(404, "RevisionNotFound" if known else "RepoNotFound")

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, data: bytes, commit: str, *, is_head: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data)


@contextmanager
def serving(repositories: dict[tuple[str, str], Path]) -> Iterator[FakeHub]:
    """A hub that runs inside the block.

    Args:
        repositories: folders by id and commit.
    """
    server = FakeHub(repositories)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
