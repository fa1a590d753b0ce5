"""The routes that an application has, by its own table."""

from typing import Any


def routes(app: Any) -> list[tuple[str, str]]:
    """Each route with its method; WEBSOCKET stands for the method of those."""
    found = set()
    pending: list[Any] = list(app.routes)
    while pending:
        route = pending.pop()
        pending += getattr(route, "routes", None) or []
        if router := getattr(route, "original_router", None):  # one that FastAPI includes
            pending += router.routes
        if not getattr(route, "path", None):
            continue
        methods = getattr(route, "methods", None)
        for method in methods or (["WEBSOCKET"] if "WebSocket" in type(route).__name__ else ["GET"]):
            found.add((method, route.path))
    return sorted(found)
