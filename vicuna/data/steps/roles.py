"""The step `roles`: a record's roles are put in the order that training expects, or the record is dropped.

The order: at most one system text, then questions and answers alternating, an answer last. A tool's results stand
between two answers.
"""

from vicuna.conversation import Message
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step, excerpt


def _repair(record: Record) -> Outcome:
    if not record.messages:
        return Drop(Finding("no_turns", "the list of turns is empty"))
    roles = [message.role for message in record.messages]
    if "assistant" not in roles:
        return Drop(Finding("no_answer", f"roles: {', '.join(roles)}"))
    if "user" not in roles:
        return Drop(Finding("no_question", f"roles: {', '.join(roles)}"))
    turns = roles[1:] if roles[0] == "system" and record.messages[0].content.strip() else roles
    if turns == ["user", "assistant"] * (len(turns) // 2):  # as nearly all are
        return Keep(record)
    repairs: list[Finding] = []
    kept = _in_order(record, repairs)
    merged = _merged(kept, repairs)
    last = max((index for index, message in enumerate(merged.messages) if message.role == "assistant"), default=-1)
    for message, turn in zip(merged.messages[last + 1 :], merged.turns[last + 1 :], strict=True):
        repairs.append(Finding("trailing_question", excerpt(message.content), turn))
    if last < 0:
        return Drop(Finding("no_answer", "no answer follows the first question"), tuple(repairs))
    return Keep(merged.select(range(last + 1)), tuple(repairs))


def _in_order(record: Record, repairs: list[Finding]) -> Record:
    """Without answers before the first question, and without system text that is empty or not at the start."""
    first = next(index for index, message in enumerate(record.messages) if message.role == "user")
    kept = []
    for index, message in enumerate(record.messages):
        if message.role == "system" and (index > first or not message.content.strip()):
            repairs.append(Finding("misplaced_system", excerpt(message.content), record.turns[index]))
        elif message.role not in ("system", "user") and index < first:
            repairs.append(Finding("leading_answer", excerpt(message.content), record.turns[index]))
        else:
            kept.append(index)
    return record.select(kept)


def _merged(record: Record, repairs: list[Finding]) -> Record:
    """Neighbours of one role as one message: equal texts once, others with an empty line between them."""
    messages: list[Message] = []
    turns: list[int] = []
    for message, turn in zip(record.messages, record.turns, strict=True):
        if not messages or message.role == "tool" or messages[-1].role != message.role:
            messages.append(message)
            turns.append(turn)
            continue
        before = messages[-1].content
        if message.content.strip() == before.strip():
            repairs.append(Finding("repeated_turn", excerpt(message.content), turn))
            continue
        repairs.append(Finding("merged_turns", excerpt(message.content), turn))
        both = "\n\n".join(text for text in (before, message.content) if text.strip())
        messages[-1] = Message(message.role, both)
    indices = [record.turns.index(turn) for turn in turns]
    return record.select(indices).with_messages(tuple(messages))


ROLES_STEP = Step(
    "roles",
    1,
    {
        "no_turns": "the record has no turns",
        "no_question": "nobody asks anything",
        "no_answer": "nobody answers",
        "leading_answer": "an answer stood before the first question",
        "misplaced_system": "system text was empty or stood inside the conversation",
        "repeated_turn": "the same turn came twice in a row",
        "merged_turns": "two turns of one side came in a row and were joined",
        "trailing_question": "the last question has no answer",
    },
    _repair,
)
