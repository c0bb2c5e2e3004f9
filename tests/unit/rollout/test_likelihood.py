import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from alpacafarm.rollout.likelihood import logprobs, per_token
from alpacafarm.text.collate import SequenceBatch, Tokens, collate

PAD = 0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Out:
    logprob_BT: Tensor
    position_BT: Tensor


def forward_of(model):
    def forward(batch: SequenceBatch, *, temperature: float) -> Out:
        logits = model(input_ids=batch.input_ids_BL, attention_mask=batch.attention_BL).logits / temperature
        steps = torch.arange(batch.response_BT.size(1))
        predicting_BT = (batch.start_B[:, None] - 1 + steps).clamp(max=logits.size(1) - 1)
        rows_B1 = torch.arange(len(logits))[:, None]
        logprob = logits.log_softmax(-1)[rows_B1, predicting_BT, batch.response_BT]
        return Out(logprob, predicting_BT.double())  # padding is left in

    return forward


def some_rows(count=17) -> list[Tokens]:
    rng = random.Random(0)
    ids = lambda most: tuple(rng.randrange(3, 40) for _ in range(rng.randint(1, most)))  # noqa: E731
    return [Tokens(ids(9), ids(15)) for _ in range(count)]


@torch.no_grad()
def row_logprobs(model, row: Tokens, temperature: float) -> list[float]:
    logits = model(input_ids=torch.tensor([row.prompt + row.response])).logits[0] / temperature
    first = len(row.prompt) - 1
    return [float(logits[first + t].log_softmax(-1)[token]) for t, token in enumerate(row.response)]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_equal_those_of_each_row_alone(model, batch_size, temperature):
    rows = some_rows()
    found = logprobs(
        forward_of(model), rows, pad_id=PAD, batch_size=batch_size, device=CPU, temperature=temperature
    )
    mask = collate(rows, PAD).mask_BT
    assert found.shape == mask.shape
    assert not found[~mask].any()
    for row, line in zip(rows, found, strict=True):
        expected = torch.tensor(row_logprobs(model, row, temperature))
        torch.testing.assert_close(line[: len(row.response)], expected, rtol=1e-4, atol=1e-4)


def test_several_fields_come_from_one_pass(llama):
    rows, calls = some_rows(), []

    def forward(batch, *, temperature):
        calls.append(len(batch.start_B))
        return forward_of(llama)(batch, temperature=temperature)

    names = ["logprob_BT", "position_BT"]
    found = per_token(forward, rows, names, pad_id=PAD, batch_size=5, device=CPU, temperature=1.0)
    assert calls == [5, 5, 5, 2]
    assert list(found) == names
    for row, line in zip(rows, found["position_BT"], strict=True):
        start, length = len(row.prompt), len(row.response)
        assert line[:length].tolist() == list(range(start - 1, start - 1 + length))


def test_rows_without_a_response_are_all_padding(llama):
    rows = [Tokens((5, 6), ()), Tokens((5,), (7, 8))]
    found = logprobs(forward_of(llama), rows, pad_id=PAD, batch_size=2, device=CPU, temperature=1.0)
    assert found[0].tolist() == [0.0, 0.0]
    assert (found[1] < 0).all()
