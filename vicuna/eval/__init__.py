"""Answers, judgments and what they show: questions, answers, verdicts, estimates. Nothing here needs torch.

`python -m vicuna.eval VERB` runs `answer`, then `judging.judge`, then `reporting.report`. In reading order:

- `rows`: the lines of these files, one at a time and bounded
- `questions`: question files, references and selections
- `answer`: `vicuna eval answer`, and the record of an answer
- `ask`: one model behind an OpenAI-compatible server, many calls concurrently, results kept under keys
- `judging`: `vicuna eval judge`: plan, prompts, calls, and the record of a judgment
- `verdict`: a judge's reply to a winner or a score, or to None
- `quoting`: what in a reply is another one's text, or is not what it looks like
- `wording`: whether the words before a verdict make it the judge's own
- `reporting`: `vicuna eval report`: judgments to estimates with intervals, on one page
"""
