"""Asking a model behind an OpenAI-compatible server: many calls concurrently, none paid twice.

- `endpoint`: one model at a base URL: requests, retries and pauses
- `wire`: the HTTP client beneath it: which headers are sent, how much of a reply is read
- `usage`: the tokens and dollars of a call
- `runner`: a bounded number of calls at a time, and the outcome of the run
- `ledger`: the output file: results under keys, on the disk before they count
"""
