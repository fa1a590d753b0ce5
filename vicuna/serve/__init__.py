"""Serving: models behind one OpenAI-compatible address, on as many machines as wanted.

    clients, web page, terminal chat --HTTP--> controller <--WebSocket, dialled by the worker-- worker: one model

The life of a request, and the file to read for each step:

1. door/: a client's request arrives. The guard checks the host it names, the page it comes from, its key, the size and
   shape of its body.
2. api/schema.py: the body becomes a Generation; a field that would be ignored is refused by name.
3. fleet/dispatch.py: the request waits, in a queue with a bound, for a slot of the least loaded worker of its model.
4. fleet/gateway.py: a Submit frame goes out over that worker's connection (fleet/link.py, fleet/protocol.py), and a
   journal is opened.
5. worker.py, prompts.py: the messages are rendered and tokenized, once; the prompt's ids go to the engine, and back to
   the journal.
6. engines/native.py: the engine takes the request in between two steps and adds a token to every running reply in each
   step.
7. worker.py again: tokens become text (never half a character, nothing beyond a stop string), and all that one step
   brought goes out as one frame.
8. fleet/gateway.py, api/openai.py, api/answer.py: the tokens are recorded in the journal, and the text goes to the
   client as an event. If the worker is lost, the stream goes back to step 3, with prompt and journal as its prompt, and
   the client sees a pause. If the client is lost, a Cancel frame frees the engine's slot.

`vicuna serve` starts controller, workers and web page on one machine. In reading order:

- `controller`: the process that clients and workers connect to
- `auth`: join tokens of workers, API keys of clients
- `door`: what every request must be, of whichever server, before anything looks into it
- `api`: the OpenAI-compatible routes
- `fleet`: the connections of the workers, and streams that survive them
- `sampling`: how the tokens of a reply are chosen
- `errors`: why a request failed, in the words and numbers of the OpenAI API
- `worker`: the process with one model
- `prompts`: a request's prompt as token ids
- `engines`: what computes the tokens
- `http_server`: a listening socket, and uvicorn until a signal ends it
- `processes`: children that cannot outlive their parent
- `client`: a client of any OpenAI-compatible server
- `web`: the chat page
- `chat`: `vicuna chat`, its flags
- `terminal`: the terminal chat itself
"""
