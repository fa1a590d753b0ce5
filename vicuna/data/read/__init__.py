"""Input files to records.

- `sources`: files, folders and patterns to the bytes of each record
- `arrays`: a JSON array cut into its values without parsing them
- `tables`: parquet files to rows
- `record`: the bytes of a record parsed, and its shape recognized
"""
