"""Answers, judgments and what they show: plan, run, score, report.

1. `answer` asks a model the questions (`questions`) through any OpenAI-compatible server (`endpoint`).
2. `plan` turns answers and judge prompts (`prompts`) into calls, each with a key made of its content.
3. `judge` makes the calls that are not yet in the output file (`ledger`), reads each verdict (`verdict`, with the words
   around it: `wording`) and keeps it.
4. `score` reads judgments back and turns them into estimates (`stats`); `report` writes these (`figures`), and every
   question with its answers and verdicts (`browser`), on one page.

`rule_judge` is a stand-in for a judge that needs no model. Nothing here needs torch.
"""
