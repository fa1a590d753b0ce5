"""Shared conversations in, training records out.

- `options`: the flags of a cleaning, their defaults and their help
- `step_kinds`: what a record is, and what a step may do with it: keep, drop or split it
- `read`: input files to records
- `html`: a chat page's HTML to Markdown
- `privacy`: private data out of all turns
- `steps`: the other cleaning steps
- `pipeline`: the steps in their order, and records taken through them
- `run`: batches of records cleaned in processes or on Ray, and combined to one result
- `look`: the report of a result, and the commands that show, describe, sample, merge and explain records
"""
