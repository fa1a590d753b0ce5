"""Looking at a result: its report, and the commands beside cleaning.

- `stats`: the command `stats`: lengths and languages of records
- `figures`: the figures of a cleaning, gathered while it is written
- `report`: the page that is drawn from the figures
- `collection`: records read from a result or any other file, for the commands
- `show`: the command `show`: records printed for reading
- `why`: the command `why`: what became of one record
- `sample`: the command `sample`: some records, chosen at random
- `merge`: the command `merge`: several results as one file
- `lists`: the command `lists`: the shipped word lists
"""
