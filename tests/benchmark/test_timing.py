import gc
import time

from tracegrad_benchmark.timing import WARM_UP, alternate


def test_every_work_runs_once_per_round_in_changing_order():
    calls, advanced = [], []
    works = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = alternate(works, 20, "cpu", lambda: advanced.append(1))
    timed = calls[3 * WARM_UP :]
    rounds = [tuple(timed[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 20, "b": 20, "c": 20}
    assert len(advanced) == len(calls) == 3 * (WARM_UP + 20)


def test_order_is_the_same_in_every_run():
    runs = ([], [])
    for calls in runs:
        alternate({name: lambda name=name, calls=calls: calls.append(name) for name in "abcd"}, 5, "cpu", lambda: None)
    assert runs[0] == runs[1]


def test_times_are_those_of_the_work():
    seconds = alternate({"sleep": lambda: time.sleep(0.02), "nothing": lambda: None}, 3, "cpu", lambda: None)
    assert all(0.02 <= each < 0.2 for each in seconds["sleep"])
    assert all(each < 0.01 for each in seconds["nothing"])


def test_nothing_is_collected_while_timing_and_again_after_it():
    enabled = []
    alternate({"work": lambda: enabled.append(gc.isenabled())}, 2, "cpu", lambda: None)
    assert enabled[WARM_UP:] == [False, False]
    assert gc.isenabled()
