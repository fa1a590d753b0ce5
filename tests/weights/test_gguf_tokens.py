"""Tokens of an exported file, as llama.cpp makes them, beside those of the model's own tokenizer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.gguf_models import byte_level, make_model, real_sentencepiece, small_sentencepiece
from vicuna.cli import main
from vicuna.conversation import encode_prompt, get_template, load_tokenizer, save_template
from vicuna.errors import VicunaError
from vicuna.weights.gguf.check import HARD_STRINGS, TURNS, check_gguf
from vicuna.weights.gguf.config_from_gguf import Metadata
from vicuna.weights.gguf.container import GGUFFile, write_gguf
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.llama_cpp import LlamaCpp
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES
from vicuna.weights.gguf.vocabulary.from_gguf import GGUFTokenizer
from vicuna.weights.gguf.vocabulary.pre_tokenizers import PRE_TOKENIZERS
from vicuna.weights.gguf.vocabulary.to_gguf import TokenType, read_vocabulary

F16 = FILE_TYPES["f16"]
MORE_STRINGS = ("", " ", "\n", "\n\n  x", "a  b   c    d", "it's 12 345, we'LL\r\n\tgo", "ﬁ ﬀ", "x\u0301\u0323")


def exported(folder: Path, **changes: Any) -> Path:
    file = folder / "model.gguf"
    export_gguf(folder, file, F16, **changes)
    return file


@pytest.mark.parametrize("pre", [one.name for one in PRE_TOKENIZERS])
def test_each_known_cut_gives_the_tokens_of_the_tokenizers_library(tmp_path: Path, pre: str) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", pre))
    file = exported(folder)
    tokenizer = load_tokenizer(folder)
    with LlamaCpp(file) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            expected = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert llama_cpp.tokenize(text, parse_special=False) == expected, text
        spelled = "<|begin|>hi<|finish|>\n<|begin|>"
        assert llama_cpp.tokenize(spelled, parse_special=True) == tokenizer(spelled)["input_ids"]
    assert GGUFModel(file).metadata.values["tokenizer.ggml.pre"] == pre


def mistral_v3(folder: Path) -> Path:
    """A real one with control tokens such as [INST]."""
    return real_sentencepiece(folder, "mistral_instruct_tokenizer_240323.model.v3")


@pytest.mark.parametrize("make", [real_sentencepiece, mistral_v3, small_sentencepiece])
def test_sentencepiece_gives_the_tokens_of_sentencepiece(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    import sentencepiece

    folder = make_model(tmp_path / "model", make(tmp_path / "tokenizer"))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with LlamaCpp(exported(folder)) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            assert llama_cpp.tokenize(text, parse_special=False) == pieces.encode(text), text


def test_a_sentencepiece_tokenizer_saved_as_json_only_keeps_its_tokens(tmp_path: Path) -> None:
    """llama.cpp's converter makes other tokens of such a folder, silently: it has no scores there."""
    make_model(tmp_path / "model", real_sentencepiece(tmp_path / "tokenizer"))
    folder = make_model(tmp_path / "json", tmp_path / "tokenizer")
    tokenizer = load_tokenizer(folder)
    (folder / "tokenizer.model").unlink()
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists() and not (folder / "tokenizer.model").exists()
    with LlamaCpp(exported(folder)) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            more = (
                " " if text.startswith(" ") else ""
            )  # transformers 5 spares itself the space before one, llama.cpp not
            expected = tokenizer(more + text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            assert llama_cpp.tokenize(text, parse_special=False) == expected, text
    assert check_gguf(folder, folder / "model.gguf").mismatches == []


def test_spaces_behind_control_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """llama.cpp puts them there as old tokenizers do; a model of a new one is warned about, not failed."""
    tokens = {}
    for legacy in (True, False):
        made = real_sentencepiece(tmp_path / f"tokenizer-{legacy}", legacy=legacy)
        folder = make_model(tmp_path / f"model-{legacy}", made)
        save_template(get_template("vicuna_v1.1"), folder)
        file = exported(folder)
        assert check_gguf(folder, file).mismatches == []
        assert ("after a control token llama.cpp puts a space" in capsys.readouterr().err) is not legacy
        back = tmp_path / f"back-{legacy}"
        import_gguf(file, back)
        tokens[legacy] = load_tokenizer(back)("a</s>b c", add_special_tokens=False)["input_ids"]
        assert tokens[legacy] == load_tokenizer(folder)("a</s>b c", add_special_tokens=False)["input_ids"]
    assert tokens[True] != tokens[False]


@pytest.mark.parametrize("template", ["vicuna_v1.1", "llama-2", "mistral"])
def test_llama_cpp_prompts_as_was_trained(tmp_path: Path, template: str) -> None:
    folder = make_model(tmp_path / "model", real_sentencepiece(tmp_path / "tokenizer"))
    save_template(get_template(template), folder)
    tokenizer = load_tokenizer(folder)
    rows = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    with LlamaCpp(exported(folder)) as llama_cpp:
        prompt = llama_cpp.render(rows)
        found = llama_cpp.tokenize(prompt, parse_special=True)
        bos = [] if found[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id]
        assert bos + found == encode_prompt(TURNS, get_template(template), tokenizer)


def test_stop_tokens_and_templates_are_in_the_file(tmp_path: Path) -> None:
    special = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "llama-bpe", special), bos_token_id=None)
    save_template(get_template("llama-3"), folder)
    tokenizer = load_tokenizer(folder)
    file = exported(folder)
    metadata = GGUFModel(file).metadata.values
    ids = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot", "eom")}
    assert tokenizer.convert_ids_to_tokens(list(ids.values())) == [
        "<|begin|>",
        "<|finish|>",
        "<|eot_id|>",
        "<|eom_id|>",
    ]
    assert metadata["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text("utf-8")
    back = tmp_path / "back"
    import_gguf(file, back)
    ends = json.loads((back / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends) == {ids["eos"], ids["eot"], ids["eom"]}
    assert load_tokenizer(back).chat_template == metadata["tokenizer.chat_template"]


def test_every_end_of_generation_config_is_said(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "gpt-2", ("<|a|>", "<|b|>", "<|c|>")))
    tokenizer = load_tokenizer(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|finish|>", "<|a|>", "<|b|>"])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    metadata = GGUFModel(exported(folder)).metadata.values
    assert [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == ends


def test_a_padded_vocabulary_and_added_tokens(tmp_path: Path) -> None:
    """Vicuna v0's shape: one token more than sentencepiece knows, said in added_tokens.json; then padding."""
    tokenizer_folder = small_sentencepiece(tmp_path / "tokenizer")
    (tokenizer_folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 500, "<plain word>": 501}))
    (tokenizer_folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    folder = make_model(tmp_path / "model", tokenizer_folder, vocab_size=512)
    file = exported(folder)
    model = GGUFModel(file)
    assert model.tokenizer.tokens[500:504] == ["[PAD]", "<plain word>", "[PAD502]", "[PAD503]"]
    kinds = [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED]
    assert model.tokenizer.token_types[500:503] == kinds
    assert model.metadata.values["tokenizer.ggml.padding_token_id"] == 500
    with LlamaCpp(file) as llama_cpp:
        assert 501 in llama_cpp.tokenize("a <plain word> b", parse_special=False)
        assert 500 not in llama_cpp.tokenize("a [PAD] b", parse_special=False)
        assert 500 in llama_cpp.tokenize("a [PAD] b", parse_special=True)


def test_a_token_without_a_row_is_named(tmp_path: Path) -> None:
    tokenizer_folder = small_sentencepiece(tmp_path / "tokenizer")
    (tokenizer_folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 500}))
    folder = make_model(tmp_path / "model", tokenizer_folder)
    with pytest.raises(VicunaError, match=r"token '\[PAD\]' has id 500, but the embedding has only 500 rows"):
        exported(folder)


def test_tokenizers_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    folder = make_model(
        tmp_path / "unigram", small_sentencepiece(tmp_path / "one", model_type="unigram", vocab_size=340)
    )
    with pytest.raises(VicunaError, match="is a unigram model"):
        exported(folder)
    folder = make_model(tmp_path / "cut", byte_level(tmp_path / "two", "gpt-2"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(VicunaError, match=r"cuts text as this one does .* --pre-tokenizer NAME"):
        exported(folder)
    export_gguf(folder, folder / "stated.gguf", F16, pre_tokenizer="gpt-2")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(VicunaError, match=r"neither tokenizer.model nor tokenizer.json"):
        exported(folder)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tokenizer.json", "{", "not JSON"),
        ("tokenizer.json", "[]", "no JSON object"),
        ("tokenizer.json", '{"model": 3}', "has no model in it"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}}, "decoder": "ByteLevel"}', "no vocabulary"),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {"a": 4000000000}}, "decoder": "ByteLevel"}',
            "not those",
        ),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": ["a b c"]}, "decoder": "ByteLevel"}', "not a pair"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {"\\ud800": 0}, "merges": []}, "decoder": "ByteLevel", '
            '"pre_tokenizer": {"type": "ByteLevel"}}',
            "is no Unicode",
        ),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "is a WordPiece tokenizer"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "y"}}}', "not an id and a text"),
        ("added_tokens.json", '{"other": 3}', "id 3 is 'this' here and 'other' in another file"),
    ],
)
def test_damaged_tokenizer_files(tmp_path: Path, name: str, text: str, said: str) -> None:
    tokenizer_folder = byte_level(tmp_path / "tokenizer", "gpt-2")
    if name == "added_tokens.json":
        config = {"added_tokens_decoder": {"3": {"content": "this"}}}
        (tokenizer_folder / "tokenizer_config.json").write_text(json.dumps(config))
    folder = make_model(tmp_path / "model", tokenizer_folder)
    (folder / name).write_text(text)
    with pytest.raises(VicunaError, match=said):
        exported(folder)


def test_a_damaged_sentencepiece_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", small_sentencepiece(tmp_path / "tokenizer"))
    for data in (b"", b"\xff" * 100, (folder / "tokenizer.model").read_bytes()[:1000]):
        (folder / "tokenizer.model").write_bytes(data)
        with pytest.raises(VicunaError, match=r"tokenizer.model is no sentencepiece model|rows"):
            exported(folder)


@pytest.mark.parametrize("kind", ["llama-bpe", "qwen2", "sentencepiece"])
def test_tokens_survive_the_way_there_and_back(tmp_path: Path, kind: str) -> None:
    made = (
        small_sentencepiece(tmp_path / "tokenizer")
        if kind == "sentencepiece"
        else byte_level(tmp_path / "tokenizer", kind, ("<|im_start|>", "<|im_end|>"))
    )
    folder = make_model(tmp_path / "model", made)
    file = exported(folder)
    import_gguf(file, tmp_path / "back")
    before, after = load_tokenizer(folder), load_tokenizer(tmp_path / "back")
    assert len(before) == len(after) and before.bos_token == after.bos_token and before.eos_token == after.eos_token
    for text in (*HARD_STRINGS, *MORE_STRINGS, "<|im_start|>user\nhi<|im_end|>"):
        for split in (True, False):
            options = {"add_special_tokens": False, "split_special_tokens": split}
            assert before(text, **options)["input_ids"] == after(text, **options)["input_ids"], text
    if kind == "sentencepiece":
        import sentencepiece

        both = [
            sentencepiece.SentencePieceProcessor(model_file=str(place / "tokenizer.model"))
            for place in (folder, tmp_path / "back")
        ]
        assert all(both[0].encode(text) == both[1].encode(text) for text in (*HARD_STRINGS, *MORE_STRINGS))


@pytest.fixture(scope="module")
def plain_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("plain") / "tokenizer", "gpt-2", vocab_size=300)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), st.booleans(), max_size=8
    ),
    st.integers(0, 20),
)
def test_any_added_tokens_survive(tmp_path: Path, plain_tokenizer: Path, added: dict[str, bool], padding: int) -> None:
    """Whatever their text: the same ids and kinds in the file and in the tokenizer made of it."""
    from tokenizers import Tokenizer as Library

    folder = tmp_path / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plain_tokenizer, folder)
    value = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    known = {*value["model"]["vocab"], *(token["content"] for token in value["added_tokens"])}
    first = len(known)
    new = [(text, special) for text, special in added.items() if text not in known]
    for number, (text, special) in enumerate(new):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        value["added_tokens"].append({"id": first + number, "content": text, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(value), "utf-8")
    vocabulary = read_vocabulary(folder, first + len(new) + padding)
    write_gguf(tmp_path / "a.gguf", vocabulary.metadata(), [], lambda _: [], overwrite=True)
    back = GGUFTokenizer(Metadata(tmp_path / "a.gguf", GGUFFile(tmp_path / "a.gguf").metadata))
    assert back.tokens == vocabulary.tokens and back.token_types == vocabulary.token_types
    assert back.tokens[first : first + len(new)] == [text for text, _ in new]
    before, after = (
        Library.from_file(str(folder / "tokenizer.json")),
        Library.from_str(json.dumps(back.tokenizer_json())),
    )
    for text in (*(f"a{text}b {text}" for text in added), "plain words  12\n"):
        assert before.encode(text).ids == after.encode(text).ids


def test_bos_is_put_before_texts_as_the_tokenizer_does(tmp_path: Path) -> None:
    for number, adds in enumerate((True, False)):
        folder = make_model(
            tmp_path / f"model{number}", byte_level(tmp_path / f"tokenizer{number}", "llama-bpe", add_bos_token=adds)
        )
        file = exported(folder)
        with LlamaCpp(file) as llama_cpp:
            ids = llama_cpp.ask("/tokenize", {"content": "hi", "add_special": True})["tokens"]
        assert (ids[0] == load_tokenizer(folder).bos_token_id) is adds
        back = tmp_path / f"back{number}"
        import_gguf(file, back)
        assert load_tokenizer(back)("hi")["input_ids"] == ids


def test_another_tokenizer_is_told_by_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "smollm"))
    file = tmp_path / "out.gguf"
    options = ["--model", str(folder), "--output", str(file), "--type", "f32", "--check"]
    assert main(["export", "gguf", *options]) == 0
    assert "16 of 16 texts the same" in capsys.readouterr().out
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    del tokenizer["model"]["merges"][2:]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main(["export", "check", "--model", str(folder), "--gguf", str(file)]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {file} cuts text into other tokens than {folder}: '") and "instead of" in said
