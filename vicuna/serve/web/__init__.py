"""The chat page in the browser: `python -m vicuna.serve.web`.

- `layout`: the parts of the page, and which event belongs to which
- `events`: what happens at each event
- `view`: what the page shows of messages, questions and notices
- `style`: theme, style sheet and the few lines of script
- `fields`: what a visitor's browser sends, checked: text and numbers
- `guard`: the allowed routes, and the hosts that the browser may ask
"""
