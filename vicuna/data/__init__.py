"""Shared conversations in, training records out.

The way of a record, in the order of the modules: `record` reads it from a file of any known shape; `steps` says what a
step is and what it may answer; `html` turns a page's answer into Markdown (`markdown` writes the pieces); `filters`
repairs the order of roles and drops what is no answer; `dedup` drops what was there before; `split` cuts what is too
long between rounds; `pipeline` runs the steps, counts, and writes the files; `report` draws the page; `why` tells what
became of one record. `__main__` holds the flags.
"""
