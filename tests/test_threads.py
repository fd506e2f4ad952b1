"""Number of torch threads: chosen by timing, one for inference, and explicit requests are kept."""

import threading
from collections import Counter
from itertools import groupby

import pytest
import torch

from davae.training.threads import ThreadChoice, get_requested_threads, single_threaded

MOST = 8
SECONDS = {1: 0.10, 2: 0.06, 4: 0.040, 8: 0.038}  # a piece's on each number of threads: 8 gain too little


@pytest.fixture(autouse=True)
def restored():
    before = torch.get_num_threads()
    torch.set_num_threads(MOST)
    yield
    torch.set_num_threads(before)


class Machine:
    """A clock on which pieces take as long as their threads need, alone or beside another program."""

    def __init__(self, seconds=SECONDS):
        self.now, self.seconds, self.busy = 0.0, seconds, False

    def work(self, choice: ThreadChoice, pieces: int) -> list[int]:
        """Do pieces and return on how many threads each was done."""
        used = []
        for _ in range(pieces):
            with choice.piece():
                used.append(torch.get_num_threads())
                self.now += self.seconds[used[-1]] * (50 if self.busy and used[-1] > 1 else 1)
        return used

    def choice(self, **options) -> ThreadChoice:
        return ThreadChoice(clock=lambda: self.now, **options)


def test_the_quickest_number_is_found_and_kept():
    machine = Machine()
    used = machine.work(machine.choice(), 200)
    assert [number for number, _ in groupby(used)] == [1, 2, 4, 8, 4]
    assert Counter(used)[4] > 180
    assert torch.get_num_threads() == MOST  # outside pieces nothing has changed


@pytest.mark.parametrize(
    ("cores", "candidates"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (6, [1, 2, 4]), (12, [1, 2, 4, 8])]
)
def test_numbers_are_powers_of_two(monkeypatch, cores, candidates):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert ThreadChoice().candidates == candidates


def test_where_threads_gain_nothing_one_is_used():
    machine = Machine({1: 0.03, 2: 0.03, 4: 0.035, 8: 0.05})
    assert Counter(machine.work(machine.choice(), 500))[1] > 470


def test_another_program_costs_some_pieces_and_no_more():
    machine = Machine()
    choice = machine.choice()
    machine.work(choice, 200)
    machine.busy = True
    used = machine.work(choice, 500)
    assert Counter(used)[1] > 480
    assert used[:20].count(1) >= 10  # it is noticed at once
    machine.busy = False
    assert machine.work(choice, 1500)[-1] == 4  # and later, that the program has ended


def test_beginning_beside_another_program_tries_more_threads_once():
    machine = Machine()
    machine.busy = True
    used = machine.work(machine.choice(), 60)
    assert Counter(used) == {1: 59, 2: 1}


def test_first_use_of_a_number_may_take_longer():
    """What torch makes once for each number of threads, such as its kernels, is no reason against it."""
    machine = Machine()
    used = set()

    class Slow(dict):
        def __getitem__(self, number):
            extra = 0.0 if number in used else 0.9
            used.add(number)
            return SECONDS[number] + extra

    machine.seconds = Slow()
    assert machine.work(machine.choice(), 100)[-1] == 4


def test_a_requested_number_is_kept():
    machine = Machine()
    machine.busy = True
    assert set(machine.work(machine.choice(threads=2), 300)) == {2}


def test_an_error_in_a_piece_restores_the_threads():
    choice = ThreadChoice()
    with pytest.raises(KeyError), choice.piece():
        raise KeyError
    assert torch.get_num_threads() == MOST


@pytest.mark.parametrize(("value", "requested"), [(None, None), ("", None), ("8", MOST)])
def test_the_environment_requests_threads(monkeypatch, value, requested):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert get_requested_threads() == requested


def test_single_threaded_restores_even_after_an_error():
    with pytest.raises(KeyError), single_threaded():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == MOST


def test_single_threaded_in_two_threads_of_python():
    """Each has its own number, so the first to leave changes nothing for the second."""
    both_in, first_out, seen = threading.Barrier(2, timeout=20), threading.Event(), {}

    def first():
        torch.set_num_threads(MOST)
        with single_threaded():
            both_in.wait()
        seen["first, outside"] = torch.get_num_threads()
        first_out.set()

    def second():
        torch.set_num_threads(MOST)
        with single_threaded():
            both_in.wait()
            assert first_out.wait(20)
            seen["second, inside"] = torch.get_num_threads()
        seen["second, outside"] = torch.get_num_threads()

    workers = [threading.Thread(target=work) for work in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert seen == {"first, outside": MOST, "second, inside": 1, "second, outside": MOST}
