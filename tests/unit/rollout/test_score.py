import random

import pytest
import torch
from torch import Tensor

from alpacafarm.rollout.score import score
from alpacafarm.text.collate import SequenceBatch, Tokens, collate

PAD = 0
CPU = torch.device("cpu")


def some_rows(count=17) -> list[Tokens]:
    rng = random.Random(0)
    ids = lambda most: tuple(rng.randrange(3, 40) for _ in range(rng.randint(1, most)))  # noqa: E731
    return [Tokens(ids(9), ids(15)) for _ in range(count)]


def last_hidden_score(model):
    """A reward read off the last response token."""

    def reward(batch: SequenceBatch) -> Tensor:
        logits = model(input_ids=batch.input_ids_BL, attention_mask=batch.attention_BL).logits
        last_B = batch.attention_BL.sum(1) - 1
        return logits[torch.arange(len(last_B)), last_B, 7]

    return reward


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_do_not_depend_on_padding_and_keep_the_rows_order(model, batch_size):
    rows, reward = some_rows(), last_hidden_score(model)
    expected = [reward(collate([row], PAD)).item() for row in rows]
    found = score(reward, rows, pad_id=PAD, batch_size=batch_size, device=CPU)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert len(set(found)) == len(rows)


def test_no_gradients_are_recorded(llama):
    seen = []

    def reward(batch: SequenceBatch) -> Tensor:
        value_B = last_hidden_score(llama)(batch)
        seen.append(value_B.requires_grad)
        return value_B

    score(reward, some_rows(), pad_id=PAD, batch_size=4, device=CPU)
    assert len(seen) == 5
    assert not any(seen)


def test_half_precision_scores_come_back_as_numbers():
    rows = some_rows(2)
    assert score(lambda b: b.start_B.bfloat16(), rows, pad_id=PAD, batch_size=2, device=CPU) == [
        float(len(row.prompt)) for row in rows
    ]
