"""Shared conversations in, training records out.

The way of a record, in the order of the modules: `sources` finds the files and cuts them into raw records (`arrays`
cuts a JSON array); `shard` batches those, and `engines` runs the batches here, in a pool or on Ray. In a batch,
`record` reads a record of any known shape; `step` says what a step is and what it may answer; `html` turns a page's
answer into Markdown (`dom` holds its tree, `inline`, `code_box` and `formulas` read it, `markdown` and `escape` write);
`filters` repairs the order of roles and leaves out what is no answer (`phrases` reads its word lists);
`privacy` takes out what is private (`private_keys`, `private_addresses` and `private_numbers` know it);
`quality` looks for answers caught in a loop; `language` names the language; `decontaminate` keeps evaluation questions
out; `dedup` compares with what was there before (`words` makes the numbers that three of them compare); `split` cuts
what is too long between rounds (`cut` finds where an answer may end); `pipeline` takes each record through the steps.
`work` keeps what is finished, so that a killed run goes on. `reduce` decides what is merged, counts, and writes in
order; `output` names the files; `figures` gathers what `report` draws. `options` holds the flags.

Beside cleaning: `lists` prints the word lists, `why` tells what became of one record, `show` prints records, `stats`
describes them in figures, `sample` and `merge` make one file of many (`collection` reads them).
"""
