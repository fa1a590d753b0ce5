"""The cleaning steps, each a pure function of one record; only `dedup` compares records.

- `page_turns`: answers that are a page's HTML to Markdown
- `noise`: control characters and button words out of answers
- `roles`: questions and answers put in order
- `answers`: empty, broken, refusing and blocked answers
- `quality`: answers that repeat themselves
- `rounds`: the cut before a bad round, which `answers` and `quality` share
- `phrases`: the word lists of `noise` and `answers`
- `language`: the language of a conversation, and languages left out
- `decontaminate`: conversations that ask an evaluation question
- `dedup`: equal, continued and near duplicates
- `shingles`: hashes of words and n-grams, by which texts are compared
- `split`: long conversations cut between rounds, and tokens counted
- `cut`: an answer cut where a block ends
"""
