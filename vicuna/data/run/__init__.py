"""A cleaning as work for many processes.

- `batches`: raw records in batches, and one batch taken through the pipeline
- `engines`: where batches are cleaned: here, in a pool of processes, on Ray
- `work`: finished parts stored, so that a killed run goes on
- `reduce`: all parts combined and written in order, and everything counted
- `output`: the files of a result, and its manifest
"""
