"""The script against what it promises, on a clock of ours: the window, the order, what is kept."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_model import MICRO, Process, lateness, run
from redis_kit import most_in

from konko_async.integrations import redis as module

FEW = settings(max_examples=15, deadline=None)


def test_the_script_is_safe_for_clusters_and_old_servers():
    text = module._SCRIPT.text
    calls = {part.split("'")[0] for part in text.split("redis.call('")[1:]}
    # What Redis 6.2 and Valkey have; no key but those that are declared, all with one hash tag.
    assert calls == {
        "TIME", "GET", "SET", "DEL", "HINCRBY", "HMGET", "HDEL", "PEXPIRE", "ZADD", "ZREM",
        "ZREMRANGEBYSCORE", "ZCARD",
    }  # fmt: skip
    keys = [f"{{lane}}:{part}" for part in module._PARTS]
    assert len(keys) == text.split("KEYS[")[1:].__len__()


# --- one process


def test_what_fits_is_granted_at_once_and_the_rest_stands_in_line(make):
    script = make(requests=600.0)
    reply = script("a", interactive=[(n, 1) for n in range(1, 10)])
    assert reply.granted == [(n, 1) for n in range(1, 7)]  # a burst of 1 %
    assert reply.standing == [7]  # one, as 25 ms are less than a request takes
    assert 0 < reply.wait <= 0.11 * MICRO
    assert reply.used_requests == 6
    assert reply.processes == 1
    script.now += reply.wait + 1
    assert script("a").granted == [(7, 1)]


def test_without_limits_all_are_granted(make):
    script = make()
    reply = script("a", interactive=[(1, 10), (2, 10**9)], batch=[(3, 1)])
    assert [ticket for ticket, _ in reply.granted] == [1, 2, 3]
    assert reply.wait == -1


def test_what_is_given_back_is_there_for_others_at_once(make):
    script = make(tokens=60_000.0)
    reply = script("a", interactive=[(1, 30_000)])
    other = script("b", interactive=[(1, 10_000)])
    assert other.granted == []
    script.now += MICRO
    script("a", epoch=reply.epoch, settled=[(reply.slot, 0, 100 - 30_000)])
    # The line was served when the tokens came back; it is fetched now.
    assert script("b", epoch=reply.epoch).granted == [(1, 10_000)]
    assert script("b").used_tokens == 10_100


def test_what_was_used_beyond_the_estimate_is_a_debt(make):
    script = make(tokens=60_000.0)
    reply = script("a", interactive=[(1, 100)])
    script("a", epoch=reply.epoch, settled=[(reply.slot, 0, 10_000)])
    assert script("b", interactive=[(1, 100)]).wait > 9 * MICRO


def test_settlements_of_a_memory_that_is_lost_give_nothing_back(make):
    script = make(tokens=60_000.0)
    first = script("a", interactive=[(1, 600)])
    script.forget()
    script.now += MICRO
    script("b", interactive=[(1, 600)])
    reply = script("b", epoch=first.epoch, settled=[(first.slot, -1, -600), (first.slot, 0, 50)])
    assert reply.used_tokens >= 650


def test_a_place_in_line_that_is_given_up_is_not_in_the_way(make):
    script = make(tokens=60_000.0)
    script("a", interactive=[(1, 600)])
    script("a", interactive=[(2, 30_000)])
    late = script("b", interactive=[(1, 100)])
    assert late.wait > 29 * MICRO
    script("a", withdrawn=[2])
    assert script("b").wait < MICRO


def test_tickets_of_a_process_that_is_gone_do_not_stay(make):
    script = make(requests=60.0)
    script("a", interactive=[(1, 1)])
    assert script("dead", interactive=[(1, 1)]).standing == [1]
    script("dead", batch=[(2, 1)])
    assert script("a", interactive=[(2, 1)]).wait > 1.5 * MICRO
    script.now += int(2.5 * MICRO)
    # One of them was granted by now, and never fetched; given back after 5 s.
    assert script("a").granted == [(2, 1)]
    script.now += 6 * MICRO
    assert script("a").used_requests == 2
    assert script("dead").granted == []


@pytest.mark.parametrize("told", ["reset", "leave"])
def test_a_process_can_be_forgotten(make, told):
    script = make(requests=60.0)
    script("a", interactive=[(1, 1), (2, 1)])
    reply = script("a", **{told: True})
    assert reply.standing == []
    assert reply.processes == (told == "reset")


# --- order


def test_first_come_first_served_across_processes_whatever_the_size(make):
    script, order = make(tokens=60_000.0), []
    script("z", interactive=[(1, 600)])
    names, sizes = "abcde", (500, 30_000, 10, 80_000, 5)
    for name, size in zip(names, sizes, strict=True):
        script(name, interactive=[(1, size)])
        script.now += 10
    for _ in range(2000):
        for name in random.sample(names, 5):  # who asks more often gains nothing
            if script(name).granted:
                order.append(name)
        if len(order) == 5:
            break
        script.now += MICRO // 10
    assert order == list(names)


def test_interactive_calls_of_one_process_pass_batch_calls_of_another(make):
    script = make(requests=600.0, burst=0.002)
    script("b", batch=[(1, 1), (2, 1)])  # the first is granted
    for n in range(8):
        script(f"b{n}", batch=[(1, 1)])
    order = []
    people = [f"i{n}" for n in range(12)]
    for name in people:
        script(name, interactive=[(1, 1)])
    everybody = ["b", *(f"b{n}" for n in range(8)), *people]
    for _ in range(400):
        script.now += MICRO // 100
        for name in everybody:
            order += [name[0]] * len(script(name).granted)
    assert len(order) == 21
    # Four of five admissions are people's as long as there are any.
    assert "".join(order) == "iiiibiiiibiiiib" + "b" * 6


# --- pauses and what is learned


def test_a_pause_holds_all_who_wait_and_ends_spread_out(make):
    script = make(requests=6000.0, burst=0.01)
    for name in "abcd":
        script(name, interactive=[(n, 1) for n in range(1, 80)])
    standing = script("a").standing
    assert standing
    reply = script("d", rejected=[(3 * MICRO, False)])
    assert 2.9 * MICRO < reply.paused <= 3 * MICRO
    script.now += int(2.9 * MICRO)
    assert all(script(name).granted == [] for name in "abcd")
    script.now += MICRO // 10
    granted = [script(name).granted for name in "abcd"]
    assert sum(map(len, granted)) == 1
    assert 0.9 * MICRO <= script("a").share <= 0.96 * MICRO  # on its way back already


def test_what_was_granted_and_not_fetched_waits_out_the_pause_too(make):
    script = make(requests=6000.0)
    script("a", interactive=[(n, 1) for n in range(1, 66)])
    script.now += MICRO
    script("b")  # serves the line of a
    script("b", rejected=[(2 * MICRO, False)])
    assert script("a").granted == []
    assert script("a").used_requests == 60


def test_rejections_of_many_processes_are_one_episode(make):
    script = make(requests=600.0)
    replies = [script(f"p{n}", rejected=[(-1, False)]) for n in range(8)]
    assert {reply.strikes for reply in replies} == {1}
    assert {round(reply.share / MICRO, 2) for reply in replies} == {0.7}
    script.now += MICRO
    assert script("p1", rejected=[(-1, False)]).strikes == 2
    script.now += MICRO
    assert script("p2", forgive=True).strikes == 0
    script.now += 60 * MICRO
    assert script("p2").share > 0.58 * MICRO  # a tenth per window comes back


def test_a_lower_limit_that_one_learned_holds_for_all(make):
    script = make(requests=600.0)
    script("a", reported=[("r", (60.0, -1.0, -1.0))])
    reply = script("b", interactive=[(n, 1) for n in range(1, 9)])
    assert reply.learned_requests == 60
    assert len(reply.granted) == 1
    # Who does not want to learn is not made to; one of five goes to b, who stands in line.
    assert len(script("c", learn=False, interactive=[(n, 1) for n in range(1, 9)]).granted) == 4


def test_what_others_use_of_the_key_is_counted(make):
    script = make(requests=600.0)
    script("a", interactive=[(1, 1)])
    assert script("a", reported=[("r", (-1.0, 400.0, -1.0))]).used_requests == 200
    # What we used ourselves is no news.
    assert script("a", reported=[("r", (-1.0, 400.0, -1.0))]).used_requests == 200
    assert script("b", reported=[("r", (-1.0, 0.0, 7.0 * MICRO))]).paused == 7 * MICRO


def test_without_a_known_rate_calls_resume_spaced_out(make):
    script = make()
    for n in range(1, 101):
        script("a", interactive=[(n, 1)])
        script.now += MICRO // 10
    script("a", rejected=[(MICRO, False)])
    script.now += MICRO
    counts = []
    for second in range(3):
        granted = 0
        for step in range(100):
            script.now += MICRO // 100
            first = 1000 * second + 10 * step
            offers = [(n, 1) for n in range(first + 200, first + 210)]
            granted += len(script("a", reset=True, interactive=offers).granted)
        counts.append(granted)
    assert 4 <= counts[0] <= 12  # 0.7 of ten a second
    assert counts[0] <= counts[1] <= counts[2] + 1


# --- a server that was restarted empty


def test_an_emptied_server_does_not_give_the_window_twice(make):
    script = make(requests=1000.0, window=MICRO)
    processes = [Process(f"p{n}", script, lambda: 1) for n in range(3)]
    run(script, processes, 1.5)
    script.forget()
    run(script, processes, 2)
    events = [(at, 1) for process in processes for at, _, _ in process.got]
    assert most_in(1.0, events) <= 1000 + 10 + 1  # a burst


def test_what_a_lost_memory_held_is_not_counted_twice(make):
    script = make(requests=100.0)
    first = script("a", interactive=[(1, 1)])
    script.forget()
    script.now += 3 * MICRO
    reply = script("a", epoch=first.epoch, late=[(MICRO, 50, 0)])
    assert reply.used_requests == 98  # all but a burst of 1.5
    script.now += 3 * MICRO
    after = script("b", epoch=first.epoch, late=[(MICRO, 1, 0), (4 * MICRO, 50, 0)])
    assert 90 <= after.used_requests <= 98 + 1 - 4


def test_what_was_spent_without_the_store_is_counted(make):
    script = make(requests=600.0, tokens=60_000.0)
    reply = script("a", late=[(MICRO, 100, 1000), (59 * MICRO, 10, 10), (70 * MICRO, 99, 99)])
    assert (reply.used_requests, reply.used_tokens) == (110, 1010)
    script.now += 5 * MICRO
    assert script("a").used_requests == 100


# --- properties


@FEW
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    limit=st.sampled_from([20, 200, 1000]),
    heaviest=st.sampled_from([1, 10, 400]),
    late=st.sampled_from([0, 3000, 40_000]),
)
def test_no_window_holds_more_than_the_limit(make, seed, count, limit, heaviest, late):  # noqa: PLR0917
    script = make(tokens=float(limit), requests=400.0, window=MICRO)
    chances = [random.Random(seed + n) for n in range(count)]
    heaviest = min(heaviest, limit)
    processes = [
        Process(
            f"p{n}",
            script,
            lambda chance=chance: chance.randint(1, heaviest),
            priority=chance.choice(["interactive", "batch"]),
            late=lateness(seed + n, late) if late else 0,
        )
        for n, chance in enumerate(chances)
    ]
    run(script, processes, 2.5)
    events = [(at, tokens) for process in processes for at, _, tokens in process.got]
    assert most_in(1.0, events) <= limit
    assert most_in(1.0, [(at, 1) for at, _ in events]) <= 400
    for process in processes:  # each in its own order, none twice
        tickets = [ticket for _, ticket, _ in process.got]
        assert tickets == sorted(set(tickets))


@FEW
@given(data=st.data())
def test_what_is_counted_is_what_was_granted_less_what_was_given_back(make, data):
    script = make(tokens=5000.0, requests=300.0, window=1000 * MICRO)
    tickets, held, standing, epoch = 0, {}, {"a": {}, "b": {}}, ""
    balance = [0, 0]
    for _ in range(data.draw(st.integers(1, 30))):
        me = data.draw(st.sampled_from("ab"))
        told = {}
        act = data.draw(st.sampled_from(["offer", "settle", "refund", "withdraw", "wait"]))
        if act == "offer":
            tickets += 1
            standing[me][tickets] = data.draw(st.integers(0, 900))
            told["interactive"] = [(tickets, standing[me][tickets])]
        elif act == "withdraw" and standing[me]:
            ticket = data.draw(st.sampled_from(sorted(standing[me])))
            del standing[me][ticket]
            told["withdrawn"] = [ticket]
        elif act in {"settle", "refund"} and held:
            ticket = data.draw(st.sampled_from(sorted(held)))
            slot, tokens = held.pop(ticket)
            used = data.draw(st.integers(0, 1000))
            change = (-1, -tokens) if act == "refund" else (0, used - tokens)
            told["settled"] = [(slot, *change)]
            balance = [balance[0] + change[0], balance[1] + change[1]]
        script.now += data.draw(st.integers(0, 3 * MICRO))
        reply = script(me, epoch=epoch, **told)
        epoch = reply.epoch
        for ticket, tokens in reply.granted:
            assert standing[me].pop(ticket) == tokens
            held[ticket] = (reply.slot, tokens)
            balance = [balance[0] + 1, balance[1] + tokens]
        standing[me] = {t: n for t, n in standing[me].items() if t in reply.standing}
        assert set(reply.standing) == set(standing[me])
    # All that the line granted is fetched or taken back: then nothing is left over.
    fetched = [script(me, epoch=epoch, reset=True) for me in "ab"]
    assert [fetched[1].used_requests, fetched[1].used_tokens] == balance


@FEW
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([100, 500]))
def test_a_busy_line_uses_nearly_all_and_shares_it(make, seed, limit):
    script = make(requests=float(limit), window=MICRO)
    processes = [
        Process(f"p{n}", script, lambda: 1, late=lateness(seed + n, 2000)) for n in range(5)
    ]
    run(script, processes, 4)
    events = [(at, 1) for process in processes for at, _, _ in process.got]
    begin = events[0][0]
    used = sum(n for at, n in events if begin + 1 <= at < begin + 4 - 0.1) / (2.9 * limit)
    assert 0.96 < used <= 1
    counts = [len(process.got) for process in processes]
    assert max(counts) - min(counts) <= 0.2 * max(counts)
