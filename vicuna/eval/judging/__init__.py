"""Judging answers: `vicuna eval judge`.

- `judge`: the verb: makes the missing calls and keeps a judgment of each
- `plan`: the calls of a run with their keys, and the budget
- `prompts`: the judge's prompts, filled in and parsed
- `judgment`: the record of one verdict, to a row and from a row
- `rule_judge`: a rule-based stand-in for a judge, which needs no model and no key
"""
