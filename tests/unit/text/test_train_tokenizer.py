import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from alpacafarm.text.train_tokenizer import train_tokenizer

TEXTS = ["the cat sat on the mat", "the sum of two and three is five", "a cat and a hat"] * 5


def test_special_tokens_have_the_first_ids_and_every_byte_a_token():
    tokenizer = train_tokenizer(TEXTS, 280)
    assert len(tokenizer) == 280
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [0, 1, 2]
    text = "".join(map(chr, range(1, 300))) + "\N{LLAMA}"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_frequent_words_become_one_token():
    tokenizer = train_tokenizer(TEXTS, 330)
    assert len(tokenizer(" cat", add_special_tokens=False)["input_ids"]) == 1


def test_the_same_texts_give_the_same_tokenizer_in_another_process():
    code = (
        "from alpacafarm.text.train_tokenizer import train_tokenizer; "
        f"print(train_tokenizer({TEXTS!r}, 300).backend_tokenizer.to_str())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == train_tokenizer(iter(TEXTS), 300).backend_tokenizer.to_str()


@pytest.mark.parametrize("text", ["the cat", "</s> end", " two  spaces . "])
def test_a_saved_tokenizer_loads_as_the_same(tmp_path, text):
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 0
    assert loaded(text)["input_ids"] == ids
    assert loaded.decode(ids[1:]) == tokenizer.decode(ids[1:])
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")
