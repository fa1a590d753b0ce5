"""llama.cpp as a server: a chat with a random model."""

from pathlib import Path

from tests.weights.gguf.builders import byte_level, make_model, transformers_tokenizer
from vicuna.weights.gguf.llama_cpp import LlamaCpp
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


def test_a_chat_with_a_random_model(tmp_path: Path) -> None:
    """No sense to be expected, but a reply of the length asked for, through the template in the file."""
    special = ("<|im_start|>", "<|im_end|>")
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    folder = make_model(
        tmp_path / "model", byte_level(tmp_path / "tokenizer", "smollm", special, chat_template=template)
    )
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["q8_0"])
    messages = [{"role": "user", "content": "Hello?"}]
    with LlamaCpp(tmp_path / "a.gguf") as llama_cpp:
        assert llama_cpp.render(messages) == "<|im_start|>user\nHello?<|im_end|><|im_start|>assistant\n"
        answer = llama_cpp.chat(messages, 8)
    assert answer["usage"]["completion_tokens"] <= 8 and answer["choices"][0]["finish_reason"] in ("length", "stop")
    tokenizer = transformers_tokenizer(folder)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert answer["usage"]["prompt_tokens"] == len(prompt)
