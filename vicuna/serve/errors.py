"""Why a request failed, in the words and numbers of the OpenAI API. Raised at the door and in the gateway."""

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject


class ClientLeft(Exception):
    """The client has closed its connection."""


class RequestError(VicunaError):
    """A request that gets no (full) answer.

    Attributes:
        status: the HTTP status, if no byte has been sent yet.
        kind: OpenAI's error type; `code`: a word for programs; `param`: the field at fault.
        retry_after: seconds after which trying again makes sense.
    """

    status = 500
    kind = "server_error"
    code: str | None = None

    def __init__(self, message: str, retry_after: int | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.retry_after, self.param = retry_after, param


class InvalidRequest(RequestError):
    """The request itself is at fault."""

    status, kind, code = 400, "invalid_request_error", "invalid_value"


class UnsupportedField(InvalidRequest):
    """A field that this server does not know, or does not act on."""

    code = "unsupported_parameter"


class PromptTooLong(InvalidRequest):
    """The prompt leaves no room for a reply."""

    code = "context_length_exceeded"


class BodyTooLarge(InvalidRequest):
    """The body is larger than the server reads."""

    status, code = 413, "request_too_large"


class InvalidKey(RequestError):
    """The request has no key that the server knows."""

    status, kind, code = 401, "authentication_error", "invalid_api_key"


class ForbiddenHost(RequestError):
    """The request names a host that this server does not answer to."""

    status, kind, code = 403, "authentication_error", "forbidden_host"


class ForbiddenOrigin(RequestError):
    """A browser asks for a page of another origin."""

    status, kind, code = 403, "authentication_error", "forbidden_origin"


class ServerBusy(RequestError):
    """The server holds as much as it takes."""

    status, code = 503, "server_busy"


class WrongContentType(InvalidRequest):
    """The body is not declared as JSON."""

    status, code = 415, "unsupported_media_type"


class NotFound(InvalidRequest):
    """No such route."""

    status, code = 404, "not_found"


class ModelNotFound(RequestError):
    """No worker has ever served that model."""

    status, kind, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class QueueFull(RequestError):
    """Too many requests wait already."""

    status, code = 503, "queue_full"


class NoWorker(RequestError):
    """The model's workers are gone and no new one came."""

    status, code = 503, "no_worker"


class StreamLost(RequestError):
    """A reply that had begun lost its worker, and could not be continued."""

    status, code = 503, "worker_lost"


def error_body(error: RequestError) -> JsonObject:
    """An error as the OpenAI API words it."""
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}
