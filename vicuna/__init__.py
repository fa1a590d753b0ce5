"""vicuna: turn shared conversations into a chatbot of your own, and find out how good it is.

The rooms of the house, each with its own command: `vicuna.data` (clean), `vicuna.train` (fine-tune), `vicuna.weights`
(deltas), `vicuna.serve` (controller, workers, API, page) and `vicuna.eval` (questions, judge, report). They share one
module that puts prompts together: `vicuna.conversation`.
"""

__version__ = "0.1.0"
