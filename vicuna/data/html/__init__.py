"""A chat page's HTML to the Markdown that the model wrote.

- `walker`: the blocks of a page, and the whole of it, to Markdown
- `dom`: the page's elements as plain objects
- `inline`: what is inside of a paragraph, heading or cell
- `code_box`: code with its header bar to a fenced block
- `formulas`: a rendered formula to its TeX
- `markdown`: the syntax of code, emphasis, links, lists and tables
- `escape`: literal text escaped where it would be read as syntax
"""
