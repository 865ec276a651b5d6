"""Background work makes way for readers, and is not starved by them."""

from __future__ import annotations

import threading
import time

import pytest

from lazylayer.concurrency import BackgroundWorkers
from lazylayer.fetching.scheduling import Scheduler, Turn


def test_a_turn_comes_at_once_when_nothing_is_under_way() -> None:
    turn = Scheduler(silence=0, starvation=1000).wait_turn()
    assert turn is not None
    assert not turn.insistent
    assert not turn.should_yield()


def test_background_work_waits_for_readers_and_yields_to_new_ones() -> None:
    scheduler = Scheduler(silence=0, starvation=1000)
    turns: list[Turn | None] = []
    with scheduler.foreground():
        waiter = threading.Thread(target=lambda: turns.append(scheduler.wait_turn()))
        waiter.start()
        waiter.join(0.1)
        assert waiter.is_alive()
    waiter.join(10)
    (turn,) = turns
    assert turn is not None
    assert not turn.should_yield()
    with scheduler.foreground():
        assert turn.should_yield()
    assert not turn.should_yield()


def test_silence_counts_from_the_end_of_the_last_reader() -> None:
    scheduler = Scheduler(silence=0.2, starvation=1000)
    with scheduler.foreground():
        pass
    ended = time.monotonic()
    assert scheduler.wait_turn() is not None
    assert time.monotonic() - ended >= 0.19


def test_a_busy_node_still_gives_a_turn_now_and_then() -> None:
    scheduler = Scheduler(silence=1000, starvation=0.1)
    with scheduler.foreground():
        turn = scheduler.wait_turn()
        assert turn is not None
        assert turn.insistent
        assert not turn.should_yield()


@pytest.mark.seed(18)
def test_closing_wakes_every_waiter() -> None:
    scheduler = Scheduler(silence=0, starvation=1000)
    turns: list[Turn | None] = []
    with scheduler.foreground():
        waiters = [threading.Thread(target=lambda: turns.append(scheduler.wait_turn())) for _ in range(8)]
        for waiter in waiters:
            waiter.start()
        scheduler.close()
        for waiter in waiters:
            waiter.join(10)
    assert turns == [None] * 8


@pytest.mark.seed(18)
def test_many_waiters_start_finish_and_time_out_without_deadlock() -> None:
    scheduler = Scheduler(silence=0, starvation=0.01)
    stop = time.monotonic() + 0.5
    rounds = [0] * 8

    def read(slot: int) -> None:
        while time.monotonic() < stop:
            with scheduler.foreground():
                rounds[slot] += 1

    def fetch(slot: int) -> None:
        while time.monotonic() < stop:
            turn = scheduler.wait_turn()
            assert turn is not None
            turn.should_yield()
            rounds[slot] += 1

    threads = [threading.Thread(target=read if slot % 2 else fetch, args=(slot,)) for slot in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert all(rounds)


def test_workers_take_tasks_in_turn_until_each_is_done() -> None:
    workers = BackgroundWorkers(Scheduler(silence=0, starvation=1000).wait_turn, 1)
    order: list[str] = []
    done = threading.Event()

    def task(name: str, pieces: int) -> None:
        left = pieces

        def work(_: Turn) -> bool:
            nonlocal left
            order.append(name)
            left -= 1
            if name == "b" and not left:
                done.set()
            return left > 0

        workers.add(work)

    task("a", 2)
    task("b", 3)
    assert done.wait(10)
    workers.close()
    assert sorted(order) == ["a", "a", "b", "b", "b"]


def test_a_task_that_fails_is_tried_again_and_holds_up_nobody() -> None:
    workers = BackgroundWorkers(Scheduler(silence=0, starvation=1000).wait_turn, 1, first_pause=0.05)
    tries: list[float] = []
    recovered, other = threading.Event(), threading.Event()

    def failing(_: Turn) -> bool:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise RuntimeError("not yet")
        recovered.set()
        return False

    def healthy(_: Turn) -> bool:
        other.set()
        return False

    workers.add(failing)
    workers.add(healthy)
    assert other.wait(10)
    assert recovered.wait(10)
    assert tries[2] - tries[1] > tries[1] - tries[0] > 0.04
    workers.close()


def test_a_removed_task_does_not_run_again() -> None:
    scheduler = Scheduler(silence=0, starvation=1000)
    workers = BackgroundWorkers(scheduler.wait_turn, 1)
    runs: list[int] = []

    def work(_: Turn) -> bool:
        runs.append(1)
        return True

    with scheduler.foreground():
        workers.add(lambda _: False)
        workers.add(work)
        workers.remove(work)
    time.sleep(0.1)
    workers.close()
    assert not runs
