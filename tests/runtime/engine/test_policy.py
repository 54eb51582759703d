"""The batch policy keeps its promises for any sequence of arrivals. Time is a number the test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_runtime.engine.model import Item
from embedding_runtime.engine.policy import BatchPolicy, Cause, Limits, Reason, Refusal, Run, Wait
from embedding_runtime.engine.work import Lane, Ticket, Work
from hypothesis import given, settings
from hypothesis import strategies as st

settings.register_profile("unhurried", deadline=None, max_examples=60)
settings.load_profile("unhurried")

LIMITS = Limits(max_batch_tokens=100, max_batch_items=8, max_queued_tokens=500, max_wait=0.01, window_items=4)
windows = st.sampled_from([1, 2, 4, 16])
lanes = st.sampled_from(Lane)
# Keys from a small range make identical sequences likely; the tokens of a sequence follow from its key.
keys = st.one_of(st.none(), st.integers(1, 6))
requests = st.tuples(lanes, st.lists(st.tuples(st.integers(1, 150), keys), min_size=1, max_size=12))


def items(*tokens: int) -> list[Item]:
    return [Item(count, None) for count in tokens]


def keyed(inputs: Sequence[tuple[int, int | None]]) -> list[Item]:
    return [Item(tokens if key is None else 20 * key, None, key=key) for tokens, key in inputs]


def admit(policy: BatchPolicy, lane: Lane, tokens: Sequence[int], now: float) -> Ticket:
    ticket = policy.offer(lane, items(*tokens), now)
    assert isinstance(ticket, Ticket)
    return ticket


def drain(policy: BatchPolicy, now: float) -> list[Run]:
    runs = []
    while isinstance(decision := policy.decide(now), Run):
        runs.append(decision)
        policy.settle(decision, now)
    return runs


def assert_within_budget(run: Run, limits: Limits) -> None:
    longest = max(work.tokens for work in run.works)
    cost = longest * len(run.works) if limits.padded else run.tokens
    tiles = sum(work.item.tiles for work in run.works)
    assert len(run.works) <= limits.max_batch_items
    assert len(run.works) == 1 or cost <= limits.max_batch_tokens
    assert len(run.works) == 1 or limits.max_batch_tiles is None or tiles <= limits.max_batch_tiles


@given(st.lists(requests, max_size=20), windows, st.booleans())
def test_every_admitted_input_is_answered_exactly_once_within_the_budget(
    arrivals: list[tuple[Lane, list[tuple[int, int | None]]]], window: int, padded: bool
) -> None:
    limits = Limits(100, 8, 500, 0.01, window_items=window, padded=padded)
    policy = BatchPolicy(limits)
    admitted = [t for lane, inputs in arrivals if isinstance(t := policy.offer(lane, keyed(inputs), 0.0), Ticket)]
    runs = drain(policy, 1.0)
    seen = [(id(ticket), index) for run in runs for work in run.works for ticket, index in work.readers]
    assert sorted(seen) == sorted((id(t), index) for t in admitted for index in range(len(t.works)))
    for run in runs:
        assert run.works
        assert_within_budget(run, limits)
    assert all(policy.queued_tokens(lane) == 0 and policy.queued_items(lane) == 0 for lane in Lane)
    assert all(ticket.unsettled == 0 for ticket in admitted)


@given(st.lists(requests, max_size=20))
def test_no_key_is_computed_twice_at_once(arrivals: list[tuple[Lane, list[tuple[int, int | None]]]]) -> None:
    policy = BatchPolicy(Limits(100, 8, 10**6, 0.01))
    for lane, inputs in arrivals:
        policy.offer(lane, keyed(inputs), 0.0)
    computed = [work.item.key for run in drain(policy, 1.0) for work in run.works if work.item.key is not None]
    assert len(computed) == len(set(computed))


@given(st.lists(requests, max_size=20))
def test_a_request_is_admitted_whole_or_not_at_all(
    arrivals: list[tuple[Lane, list[tuple[int, int | None]]]],
) -> None:
    policy = BatchPolicy(LIMITS)
    for lane, inputs in arrivals:
        tokens = [count for count, _ in inputs]
        before = sum(policy.queued_tokens(each) for each in Lane)
        ticket = policy.offer(lane, items(*tokens), 0.0)
        after = sum(policy.queued_tokens(each) for each in Lane)
        admitted = isinstance(ticket, Ticket)
        assert after == before + (sum(tokens) if admitted else 0)
        assert admitted == (before == 0 or before + sum(tokens) <= LIMITS.max_queued_tokens)


@given(st.lists(st.one_of(requests, st.integers(0, 30)), max_size=40), windows)
def test_counts_agree_with_what_queues_whatever_is_cancelled(steps: list[object], window: int) -> None:
    policy = BatchPolicy(Limits(100, 8, 500, 0.01, window_items=window))
    tickets: list[Ticket] = []
    running: list[Run] = []
    for now, step in enumerate(steps):
        if isinstance(step, int):
            if step % 3 == 0 and running:
                policy.settle(running.pop(), float(now))
            elif step % 3 == 1 and isinstance(run := policy.decide(float(now)), Run):
                running.append(run)
            elif tickets:
                policy.cancel(tickets[step % len(tickets)])
        elif isinstance(step, tuple):
            ticket = policy.offer(step[0], keyed(step[1]), float(now))
            if isinstance(ticket, Ticket):
                tickets.append(ticket)
        started = {id(work) for run in running for work in run.works}
        queued = {
            id(work): work for t in tickets if t.unsettled and not t.cancelled for work in t.works
            if work.stage.name == "QUEUED"
        }  # fmt: skip
        assert not started & set(queued)
        for lane in Lane:
            mine = [work for work in queued.values() if work.lane is lane]
            assert policy.queued_items(lane) == len(mine)
            assert policy.queued_tokens(lane) == sum(work.tokens for work in mine)
            assert policy.oldest_arrival(lane) == min((work.arrived for work in mine), default=None)


@given(st.lists(st.lists(st.integers(1, 100), min_size=1, max_size=6), min_size=1, max_size=30), windows)
def test_nothing_is_overtaken_by_more_than_its_window(arrivals: list[list[int]], window: int) -> None:
    """Whenever an item runs, fewer than `window` later ones of its lane ran before it, batches running in between."""
    policy = BatchPolicy(Limits(100, 8, 10**6, 0.01, window_items=window))
    arrived: list[Work] = []
    ran: list[Work] = []
    for now, tokens in enumerate(arrivals):
        arrived += admit(policy, Lane.BULK, tokens, float(now)).works
        if now % 3 == 2 and isinstance(run := policy.decide(float(now)), Run):
            ran += run.works
    ran += [work for run in drain(policy, 1e6) for work in run.works]
    position = {work: place for place, work in enumerate(arrived)}
    for place, work in enumerate(ran):
        assert sum(position[earlier] > position[work] for earlier in ran[:place]) < window


@given(st.lists(st.tuples(st.floats(0, 0.02), requests), max_size=20), st.integers(0, 3), st.integers(0, 3))
def test_an_idle_engine_waits_no_longer_than_allowed_from_the_oldest_arrival(
    arrivals: list[tuple[float, tuple[Lane, list[tuple[int, int | None]]]]], preparing: int, answered: int
) -> None:
    policy = BatchPolicy(LIMITS)
    for _ in range(preparing):
        policy.announce(Lane.INTERACTIVE)
        policy.announce(Lane.BULK)
    now = 0.0
    for pause, (lane, inputs) in arrivals:
        now += pause
        policy.offer(lane, keyed(inputs), now)
        oldest = min(a for lane in Lane if (a := policy.oldest_arrival(lane)) is not None)
        decision = policy.decide(now)
        if isinstance(decision, Wait):
            assert decision.until == oldest + LIMITS.max_wait
            assert now < decision.until
        else:
            policy.settle(decision, now)
            drain(policy, now + 1)


@given(st.lists(requests, min_size=1, max_size=20))
def test_a_busy_engine_never_waits(arrivals: list[tuple[Lane, list[tuple[int, int | None]]]]) -> None:
    """Work conserving: what queues when a batch ends runs at once, whoever else may come."""
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.BULK, [1], 0.0)
    first = policy.decide(0.0)
    assert isinstance(first, Run)
    for lane, inputs in arrivals:
        policy.announce(lane)
        policy.offer(lane, keyed(inputs), 1.0)
    policy.settle(first, 2.0)
    while any(policy.queued_items(lane) for lane in Lane):
        run = policy.decide(2.0)
        assert isinstance(run, Run)
        policy.settle(run, 2.0)


def test_a_request_larger_than_the_queue_is_admitted_when_it_is_empty() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.BULK, [90] * 20, 0.0)
    refused = policy.offer(Lane.BULK, items(1), 0.0)
    assert isinstance(refused, Refusal)
    assert refused.cause is Cause.QUEUE_FULL


def test_a_lone_request_runs_at_once() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.INTERACTIVE, [5], 0.0)
    decision = policy.decide(0.0)
    assert isinstance(decision, Run)
    assert decision.reason is Reason.IDLE


def test_an_announced_request_is_waited_for_from_the_oldest_arrival() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.INTERACTIVE, [5], 1.0)
    policy.announce(Lane.INTERACTIVE)
    assert policy.decide(1.0) == Wait(1.01)
    admit(policy, Lane.INTERACTIVE, [5], 1.009)
    assert policy.decide(1.009) == Wait(1.01)
    decision = policy.decide(1.01)
    assert isinstance(decision, Run)
    assert (decision.reason, len(decision.works)) == (Reason.TIMER, 2)


def test_a_query_does_not_wait_for_bulk_that_is_being_prepared() -> None:
    policy = BatchPolicy(LIMITS)
    policy.announce(Lane.BULK)
    admit(policy, Lane.INTERACTIVE, [5], 1.0)
    decision = policy.decide(1.0)
    assert isinstance(decision, Run)
    assert decision.reason is Reason.IDLE


def test_clients_just_answered_are_waited_for_until_all_are_back() -> None:
    policy = BatchPolicy(LIMITS)
    for _ in range(2):
        admit(policy, Lane.INTERACTIVE, [5], 0.5)
    run = policy.decide(0.6)
    assert isinstance(run, Run)
    policy.settle(run, 1.0)
    admit(policy, Lane.INTERACTIVE, [5], 1.001)
    assert policy.decide(1.002) == Wait(1.011)
    admit(policy, Lane.INTERACTIVE, [5], 1.003)
    assert isinstance(policy.decide(1.003), Run)


def test_a_full_batch_does_not_wait() -> None:
    policy = BatchPolicy(LIMITS)
    policy.announce(Lane.INTERACTIVE)
    admit(policy, Lane.INTERACTIVE, [100], 1.0)
    decision = policy.decide(1.0)
    assert isinstance(decision, Run)
    assert decision.reason is Reason.FULL


def test_similar_lengths_share_a_batch_within_the_window() -> None:
    policy = BatchPolicy(Limits(100, 8, 500, 0.01, window_items=4))
    admit(policy, Lane.BULK, [40, 10, 50, 5, 1], 0.0)
    runs = drain(policy, 1.0)
    assert [[work.tokens for work in run.works] for run in runs] == [[5, 10, 40], [50, 1]]


def test_padding_counts_where_the_model_pads() -> None:
    policy = BatchPolicy(Limits(100, 8, 500, 0.01, window_items=1, padded=True))
    admit(policy, Lane.BULK, [50, 1, 50], 0.0)
    assert [len(run.works) for run in drain(policy, 1.0)] == [2, 1]


def test_image_tiles_are_a_budget_of_their_own_and_a_larger_item_runs_alone() -> None:
    policy = BatchPolicy(Limits(100, 8, 500, 0.01, window_items=1, max_batch_tiles=4))
    offered = policy.offer(Lane.BULK, [Item(1, None, tiles=tiles) for tiles in (2, 2, 1, 9, 0, 4)], 0.0)
    assert isinstance(offered, Ticket)
    runs = drain(policy, 1.0)
    assert [[work.item.tiles for work in run.works] for run in runs] == [[2, 2], [1], [9], [0, 4]]


def test_interactive_overtakes_bulk_and_does_not_share_its_batch() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.BULK, [50] * 8, 0.0)
    admit(policy, Lane.INTERACTIVE, [10], 0.5)
    run = policy.decide(0.5)
    assert isinstance(run, Run)
    assert run.tokens_by_lane == {Lane.INTERACTIVE: 10}


def test_bulk_that_costs_queries_little_joins_them() -> None:
    policy = BatchPolicy(LIMITS)
    policy.pace.ran(frozenset({Lane.INTERACTIVE}), 10, 0.002, 0.002)
    policy.pace.ran(frozenset({Lane.BULK}), 100, 0.002, 0.002)
    admit(policy, Lane.BULK, [20] * 20, 0.0)
    admit(policy, Lane.INTERACTIVE, [10], 0.5)
    run = policy.decide(0.5)
    assert isinstance(run, Run)
    # Fifty tokens take half as long as the query alone.
    assert run.tokens_by_lane == {Lane.INTERACTIVE: 10, Lane.BULK: 40}


def test_bulk_batches_are_cut_while_queries_come() -> None:
    policy = BatchPolicy(LIMITS)
    policy.pace.ran(frozenset({Lane.INTERACTIVE}), 10, 0.002, 0.002)
    policy.pace.ran(frozenset({Lane.BULK}), 100, 0.012, 0.005)
    admit(policy, Lane.BULK, [10] * 30, 0.0)
    run = policy.decide(0.0)
    assert isinstance(run, Run)
    assert run.tokens == 80  # the item limit: nobody asked anything yet
    policy.settle(run, 0.1)
    admit(policy, Lane.INTERACTIVE, [10], 0.1)
    assert drain(policy, 0.2)[1].tokens == 40


def test_a_query_takes_its_sequence_out_of_queued_bulk() -> None:
    policy = BatchPolicy(LIMITS)
    bulk = policy.offer(Lane.BULK, keyed([(5, None), (0, 1), (0, 2)]), 0.0)
    query = policy.offer(Lane.INTERACTIVE, keyed([(0, 2)]), 0.5)
    assert isinstance(bulk, Ticket)
    assert isinstance(query, Ticket)
    assert (query.new_tokens, query.shared_items) == (0, 1)
    run = policy.decide(0.5)
    assert isinstance(run, Run)
    assert policy.settle(run, 1.0) == [query]
    assert [reader for work in run.works for reader in work.readers] == [(bulk, 2), (query, 0)]
    drain(policy, 2.0)
    assert bulk.unsettled == 0


def test_who_shares_survives_the_one_that_came_first() -> None:
    policy = BatchPolicy(LIMITS)
    leader = policy.offer(Lane.BULK, keyed([(0, 1), (0, 1)]), 0.0)
    follower = policy.offer(Lane.BULK, keyed([(0, 1)]), 0.1)
    assert isinstance(leader, Ticket)
    assert isinstance(follower, Ticket)
    assert policy.cancel(leader) == 2
    run = policy.decide(1.0)
    assert isinstance(run, Run)
    assert policy.settle(run, 1.0) == [follower]


def test_work_that_everybody_left_while_it_ran_is_joined_by_nobody() -> None:
    policy = BatchPolicy(LIMITS)
    left = policy.offer(Lane.BULK, keyed([(0, 1)]), 0.0)
    run = policy.decide(1.0)
    assert isinstance(left, Ticket)
    assert isinstance(run, Run)
    policy.cancel(left)
    late = policy.offer(Lane.BULK, keyed([(0, 1)]), 1.0)
    assert isinstance(late, Ticket)
    assert late.shared_items == 0
    assert policy.settle(run, 1.1) == []
    # The work that ended was not the one that is in flight now.
    again = policy.offer(Lane.BULK, keyed([(0, 1)]), 1.2)
    assert isinstance(again, Ticket)
    assert again.shared_items == 1
    assert len(drain(policy, 3.0)) == 1


def test_sharing_is_bounded_like_everything_else() -> None:
    policy = BatchPolicy(Limits(10, 8, 30, 0.01))
    admitted = 0
    while isinstance(policy.offer(Lane.BULK, keyed([(0, 1)]), 0.0), Ticket):
        admitted += 1
    assert admitted == 11


def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    policy = BatchPolicy(Limits(100, 8, 10**6, 0.01, bulk_share=0.25))
    admit(policy, Lane.BULK, [10] * 80, 0.0)

    def offer(lane: Lane, tokens: int, speed: float | None = 100.0) -> Ticket | Refusal:
        return policy.offer(lane, items(tokens), 0.0, speed=speed, timeout=10.0)

    assert offer(Lane.BULK, 300) == Refusal(Cause.DEADLINE, 100.0)
    assert isinstance(offer(Lane.BULK, 300, None), Ticket)
    # Queries overtake the bulk, but leave it its share.
    assert isinstance(offer(Lane.INTERACTIVE, 700), Ticket)
    assert offer(Lane.INTERACTIVE, 100) == Refusal(Cause.DEADLINE, 50.0)


def test_a_running_batch_counts_for_the_deadline() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.BULK, [100], 0.0)
    assert isinstance(policy.decide(0.0), Run)
    assert policy.offer(Lane.BULK, items(1), 0.0, speed=10.0, timeout=10.0) == Refusal(Cause.DEADLINE, 1.0)


def test_a_query_interrupts_bulk_until_bulk_has_waited_enough() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.BULK, [50, 50], 0.0)
    run = policy.decide(0.0)
    assert isinstance(run, Run)
    assert policy.interrupt(run) is None
    overtaken_with = 0
    for _ in range(20):
        admit(policy, Lane.INTERACTIVE, [30], 0.1)
        queries = policy.interrupt(run)
        if queries is None:
            break
        assert (queries.reason, queries.tokens_by_lane) == (Reason.INTERRUPT, {Lane.INTERACTIVE: 30})
        policy.settle(queries, 0.1)
        overtaken_with += queries.tokens
    # At a quarter for bulk, a hundred of its tokens stand behind three hundred others.
    assert overtaken_with == 300


def test_queries_are_not_interrupted() -> None:
    policy = BatchPolicy(LIMITS)
    admit(policy, Lane.INTERACTIVE, [10], 0.0)
    run = policy.decide(0.0)
    assert isinstance(run, Run)
    admit(policy, Lane.INTERACTIVE, [10], 0.0)
    assert policy.interrupt(run) is None


@given(st.integers(1, 100), st.integers(1, 150), st.booleans())
def test_neither_lane_starves_the_other(interactive: int, bulk: int, interruptible: bool) -> None:
    """With both lanes always full, bulk gets about its share of the tokens and interactive the rest."""
    policy = BatchPolicy(Limits(100, 1000, 10**9, 0.01))
    ran = dict.fromkeys(Lane, 0)

    def refill(now: float) -> None:
        for lane, size in ((Lane.INTERACTIVE, interactive), (Lane.BULK, bulk)):
            if policy.queued_tokens(lane) < 300:
                admit(policy, lane, (size,) * 300, now)

    for step in range(400):
        refill(float(step))
        run = policy.decide(float(step))
        assert isinstance(run, Run)
        for lane, tokens in run.tokens_by_lane.items():
            ran[lane] += tokens
        while interruptible and (queries := policy.interrupt(run)) is not None:
            ran[Lane.INTERACTIVE] += queries.tokens
            policy.settle(queries, float(step))
            refill(float(step))
        policy.settle(run, float(step))
    share = ran[Lane.BULK] / sum(ran.values())
    assert 0.2 <= share <= 0.75


@given(st.integers(1, 4), st.lists(requests, min_size=1, max_size=20), st.data())
def test_several_workers_lose_nothing_and_run_nothing_twice(
    workers: int, arrivals: list[tuple[Lane, list[tuple[int, int | None]]]], data: st.DataObject
) -> None:
    policy = BatchPolicy(LIMITS, workers=workers)
    admitted = [t for lane, inputs in arrivals if isinstance(t := policy.offer(lane, keyed(inputs), 0.0), Ticket)]
    running: list[Run] = []
    seen: list[tuple[int, int]] = []
    while True:
        decision = policy.decide(1.0) if len(running) < workers else None
        if isinstance(decision, Run):
            assert_within_budget(decision, LIMITS)
            running.append(decision)
        elif not running:
            break
        if not isinstance(decision, Run) or data.draw(st.booleans()):
            ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
            policy.settle(ended, 1.0)
            seen += [(id(ticket), index) for work in ended.works for ticket, index in work.readers]
    assert sorted(seen) == sorted((id(t), index) for t in admitted for index in range(len(t.works)))


def test_a_batch_leaves_the_other_workers_their_share() -> None:
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=2)
    admit(policy, Lane.BULK, (10,) * 8, 0.0)
    first, second = policy.decide(1.0), policy.decide(1.0)
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    assert (first.tokens, second.tokens) == (40, 40)


def test_a_worker_takes_more_when_the_other_is_done_with_little() -> None:
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=2)
    admit(policy, Lane.BULK, (10,), 0.0)
    assert isinstance(policy.decide(1.0), Run)
    admit(policy, Lane.BULK, (10,) * 9, 1.0)
    rest = policy.decide(2.0)
    assert isinstance(rest, Run)
    assert rest.tokens == 50


def test_shares_are_never_so_small_that_batches_are_a_waste() -> None:
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=8)
    admit(policy, Lane.BULK, (5,) * 8, 0.0)
    run = policy.decide(1.0)
    assert isinstance(run, Run)
    assert run.tokens == 25


def test_a_long_queue_fills_every_batch() -> None:
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=4)
    admit(policy, Lane.BULK, (10,) * 100, 0.0)
    run = policy.decide(1.0)
    assert isinstance(run, Run)
    assert run.tokens == 100


def test_a_burst_of_queries_is_left_to_other_workers_too() -> None:
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=2)
    admit(policy, Lane.BULK, (10,) * 100, 0.0)
    first, second = policy.decide(1.0), policy.decide(1.0)
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    admit(policy, Lane.INTERACTIVE, (10,) * 8, 1.0)
    one, other = policy.interrupt(first), policy.interrupt(second)
    assert one is not None
    assert other is not None
    assert (one.tokens, other.tokens) == (40, 20)


def test_clients_of_two_workers_are_expected_together() -> None:
    """The second answer does not make the first one's clients forgotten: a worker waits for both."""
    policy = BatchPolicy(Limits(100, 100, 10**6, 0.01), workers=2)
    admit(policy, Lane.BULK, (30,) * 2, 0.0)
    first = policy.decide(1.0)
    second = policy.decide(1.0)
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    policy.settle(first, 1.0)
    policy.settle(second, 1.001)
    # Both works belong to one request, answered by the second: it is the one client to come back.
    admit(policy, Lane.BULK, (5,), 1.002)
    assert isinstance(policy.decide(1.003), Run)
    for _ in range(2):
        admit(policy, Lane.BULK, (5,), 2.0)
    runs = [policy.decide(2.02), policy.decide(2.02)]
    admit(policy, Lane.BULK, (40,), 2.02)
    third = policy.decide(2.05)
    assert isinstance(third, Run)
    settled = [run for run in runs if isinstance(run, Run)]
    for index, run in enumerate(settled):
        policy.settle(run, 3.0 + index / 1000)
    policy.settle(third, 3.002)
    admit(policy, Lane.BULK, (5,), 3.003)
    # Three clients were answered within a moment and one is back: more is plausible.
    assert isinstance(policy.decide(3.004), Wait)
