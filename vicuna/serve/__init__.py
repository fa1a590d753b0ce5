"""Serving: models behind one OpenAI-compatible address, on as many machines as wanted.

    clients, web page, terminal chat --HTTP--> controller <--WebSocket, dialled by the worker-- worker: one model

The life of a request, and the file to read for each step:

1. `auth`: a client's request arrives. The guard checks its key (and, on a loopback server, the host it names).
2. `openai_schema`: the body becomes a `Generation`; a field that would be ignored is refused by name.
3. `dispatch`: the request waits, in a queue with a bound, for a slot of the least loaded worker of its model.
4. `gateway`: a `Submit` frame goes out over that worker's connection (`link`, `protocol`), and a journal is opened.
5. `worker`: the messages are rendered and tokenized, once; the prompt's ids go to the engine, and back to the journal.
6. `engines`: the engine takes the request in between two steps and adds a token to every running reply in each step.
7. `worker` again: tokens become text (never half a character, nothing beyond a stop string), and all that one step
   brought goes out as one frame.
8. `openai_api`, `openai_answer`: the gateway takes the tokens down in the journal, and the text goes to the client as
   an event. If the worker is lost, the stream goes back to step 3, with prompt and journal as its prompt, and the
   client sees a pause.
   If the client is lost, a `Cancel` frees the engine's slot.

`vicuna serve` (`__main__`) starts controller, workers and web page (`web`) on one machine; `chat` talks to any of them.
"""
