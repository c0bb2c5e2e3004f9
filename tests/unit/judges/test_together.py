import pytest

from alpacafarm.judges.together import finished, in_turns


def counting(name, steps, log, error=None):
    """Logs each step, and whether it was ended from outside."""
    try:
        for step in range(steps):
            log.append(f"{name}{step}")
            yield
        if error:
            raise error
    except GeneratorExit:
        log.append(f"{name} closed")
        raise
    return name * 2


def test_each_goes_a_step_in_its_turn_and_results_keep_their_order():
    log: list[str] = []
    assert in_turns([counting("a", 1, log), counting("b", 3, log), counting("c", 0, log)]) == [
        "aa",
        "bb",
        "cc",
    ]
    assert log == ["a0", "b0", "b1", "b2"]
    assert in_turns([]) == []
    assert finished(counting("d", 2, log)) == "dd"


def test_an_error_of_one_ends_all():
    log: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        in_turns([counting("a", 5, log), counting("b", 1, log, ValueError("broken"))])
    assert log == ["a0", "b0", "a1", "a closed"]
