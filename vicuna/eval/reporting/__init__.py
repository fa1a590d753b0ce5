"""Judgments to estimates and a page: `vicuna eval report`.

- `report`: the verb: reads judgments, writes the page and the JSON file
- `reading`: judgment files to judgments without their texts, and the texts of a question again
- `score`: judgments to points by question, estimates and differences
- `figures`: the results as one JSON object
- `browser`: each question with its answers and verdicts, for the page
"""
