import pytest
import torch

from alpacafarm.text.collate import Tokens, collate, collate_pairs

PAD = 2
ROWS = [
    Tokens((5,), (6, 7, 8)),
    Tokens((5, 6, 7, 9), (1,)),
    Tokens((3, PAD), ()),
]  # a pad token inside is a token


def test_rows_come_back_from_the_batch():
    batch = collate(ROWS, PAD)
    for b, row in enumerate(ROWS):
        ids = batch.input_ids_BL[b][batch.attention_BL[b].bool()].tolist()
        start = int(batch.start_B[b])
        assert tuple(ids[:start]) == row.prompt
        assert tuple(ids[start:]) == row.response
        assert tuple(batch.response_BT[b][batch.mask_BT[b]].tolist()) == row.response


def test_padding_is_on_the_right_and_holds_the_pad_id():
    batch = collate(ROWS, PAD)
    assert batch.input_ids_BL.shape == batch.attention_BL.shape == (3, 5)
    assert batch.response_BT.shape == batch.mask_BT.shape == (3, 3)
    assert (batch.attention_BL.diff(dim=1) <= 0).all()
    assert (batch.mask_BT.int().diff(dim=1) <= 0).all()
    assert (batch.input_ids_BL[batch.attention_BL == 0] == PAD).all()
    assert (batch.response_BT[~batch.mask_BT] == PAD).all()


def test_weight_and_counts_are_of_real_tokens():
    batch = collate(ROWS, PAD)
    assert batch.weight == 4
    assert (batch.real_tokens, batch.computed_tokens) == (11, 15)


def test_a_batch_without_responses_still_has_a_time_axis():
    batch = collate([Tokens((3, 4), ())], PAD)
    assert batch.mask_BT.tolist() == [[False]]
    assert batch.weight == 0


def test_an_empty_prompt_is_ours_to_prevent():
    with pytest.raises(AssertionError, match="a prompt needs at least one token"):
        collate([Tokens((), (5,))], PAD)


def test_pairs_stand_first_outputs_then_second_outputs():
    first, second = [Tokens((5,), (6,)), Tokens((7,), (8,))], [Tokens((5,), (9, 9)), Tokens((7,), (1,))]
    batch = collate_pairs(first, second, [1.0, 0.5], PAD)
    both = collate([*first, *second], PAD)
    assert torch.equal(batch.sequences.input_ids_BL, both.input_ids_BL)
    assert batch.weight == 2
    assert batch.probability_2_B.tolist() == [1.0, 0.5]


def test_moving_a_pair_batch_moves_the_batch_inside():
    pair = collate_pairs(ROWS[:1], ROWS[1:2], [1.0], PAD).to(torch.device("meta"))
    assert pair.probability_2_B.is_meta
    assert pair.sequences.mask_BT.is_meta
    assert pair.weight == 1
