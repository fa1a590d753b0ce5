"""vicuna: turn shared conversations into a chatbot of your own, and find out how good it is.

The way of the data: `data` cleans conversations, `train` fine-tunes on them, `weights` publishes the model as a delta,
`serve` puts it behind an API, `eval` judges its answers. In reading order, each importing only from those above it:

- `errors`: the errors that a user can cause, and how they read
- `io`: files, JSON lines, standard streams, messages
- `options`: one dataclass per program to flags, config file and help; the wrapper of every program's `main`
- `material`: where the shipped conversations and questions are
- `report_page`: static HTML pages and charts
- `conversation`: the one place where a prompt is put together: templates, token ids, labels, records
- `statistics`: estimates with intervals
- `weights`: checkpoints, deltas, adapters, GGUF
- `data`: `vicuna data`: shared conversations to training records
- `train`: `vicuna train`: fine-tuning
- `serve`: `vicuna serve`, `vicuna chat`: controller, workers, API, web page
- `eval`: `vicuna eval`: answers, judgments, report
- `bot`: chains of all these, `vicuna demo` among them
- `make_delta`: `vicuna make-delta`
- `apply_delta`: `vicuna apply-delta`
- `export`: `vicuna export`: a model as a GGUF file
- `import_gguf`: `vicuna import`: a GGUF file as a model
- `template`: `vicuna template`: the conversation templates, listed or shown
- `demo`: `python -m vicuna.demo`
- `cli`: the command `vicuna` and its verbs
"""

__version__ = "0.1.0"
