import torch
from torch import nn

from alpacafarm.engine.optimizer import parameter_groups, set_learning_rate


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        self.value = nn.Linear(3, 1)
        self.lr_scales = {"value.": 5.0}
        self.policy[0].bias.requires_grad_(False)


def test_vectors_are_not_decayed_and_frozen_parameters_are_in_no_group():
    module = Two()
    groups = parameter_groups(module, 0.1)
    found = {p: (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    assert found == {
        module.policy[0].weight: (0.1, 1.0),
        module.policy[1].weight: (0.0, 1.0),
        module.policy[1].bias: (0.0, 1.0),
        module.value.weight: (0.1, 5.0),
        module.value.bias: (0.0, 5.0),
    }


def test_each_group_gets_the_rate_times_its_scale():
    groups = parameter_groups(Two(), 0.0)
    set_learning_rate(groups, 2.0)
    assert {(g["lr_scale"], g["lr"]) for g in groups} == {(1.0, 2.0), (5.0, 10.0)}


def test_a_module_without_scales_learns_at_one_rate():
    groups = parameter_groups(nn.Linear(2, 2), 0.1)
    assert [g["lr_scale"] for g in groups] == [1.0, 1.0]
    assert sum(isinstance(p, torch.Tensor) for g in groups for p in g["params"]) == 2
