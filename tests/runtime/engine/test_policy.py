"""The batch policy keeps its promises for any sequence of arrivals. Time is a number the test chooses."""

from __future__ import annotations

from embedding_runtime.engine.policy import BatchPolicy, Lane, Limits, Reason, Run, Ticket, Wait
from hypothesis import given
from hypothesis import strategies as st

LIMITS = Limits(max_batch_tokens=100, max_batch_items=8, max_queued_tokens=500, max_wait=0.01)
requests = st.tuples(st.sampled_from(Lane), st.lists(st.integers(1, 150), min_size=1, max_size=12).map(tuple))


def drain(policy: BatchPolicy, now: float) -> list[Run]:
    runs = []
    while isinstance(decision := policy.decide(now), Run):
        runs.append(decision)
    return runs


@given(st.lists(requests, max_size=20))
def test_every_admitted_item_runs_exactly_once_within_the_budget(arrivals: list[tuple[Lane, tuple[int, ...]]]) -> None:
    policy = BatchPolicy(LIMITS)
    admitted = [t for lane, tokens in arrivals if (t := policy.offer(lane, tokens, 0.0)) is not None]
    runs = drain(policy, 1.0)
    seen = [(id(entry.ticket), entry.index) for run in runs for entry in run.entries]
    assert sorted(seen) == sorted((id(t), index) for t in admitted for index in range(len(t.tokens)))
    for run in runs:
        assert len(run.entries) <= LIMITS.max_batch_items
        assert run.tokens <= LIMITS.max_batch_tokens or len(run.entries) == 1
    assert all(policy.queued_tokens(lane) == 0 and policy.queued_items(lane) == 0 for lane in Lane)


@given(st.lists(requests, max_size=20))
def test_a_request_is_admitted_whole_or_not_at_all(arrivals: list[tuple[Lane, tuple[int, ...]]]) -> None:
    policy = BatchPolicy(LIMITS)
    for lane, tokens in arrivals:
        before = sum(policy.queued_tokens(each) for each in Lane)
        ticket = policy.offer(lane, tokens, 0.0)
        after = sum(policy.queued_tokens(each) for each in Lane)
        assert after == before + (sum(tokens) if ticket else 0)
        assert (ticket is None) == (before > 0 and before + sum(tokens) > LIMITS.max_queued_tokens)


@given(st.lists(st.one_of(requests, st.integers(0, 30)), max_size=40))
def test_counts_agree_with_what_queues_whatever_is_cancelled(steps: list[object]) -> None:
    policy = BatchPolicy(LIMITS)
    tickets: list[Ticket] = []
    for now, step in enumerate(steps):
        if isinstance(step, int):
            if step % 3 == 0:
                policy.decide(float(now))
            elif tickets:
                policy.cancel(tickets[step % len(tickets)])
        elif isinstance(step, tuple) and (ticket := policy.offer(step[0], step[1], float(now))):
            tickets.append(ticket)
        for lane in Lane:
            mine = [t for t in tickets if t.lane is lane and not t.cancelled]
            assert policy.queued_items(lane) == sum(len(t.tokens) - t.taken for t in mine)
            assert policy.queued_tokens(lane) == sum(t.queued_tokens for t in mine)


def test_a_request_larger_than_the_queue_is_admitted_when_it_is_empty() -> None:
    policy = BatchPolicy(LIMITS)
    assert policy.offer(Lane.BULK, (90,) * 20, 0.0)
    assert policy.offer(Lane.BULK, (1,), 0.0) is None


def test_a_lone_request_runs_at_once() -> None:
    policy = BatchPolicy(LIMITS)
    policy.offer(Lane.INTERACTIVE, (5,), 0.0)
    decision = policy.decide(0.0)
    assert isinstance(decision, Run)
    assert decision.reason is Reason.UNCONTESTED


def test_an_announced_request_is_waited_for_from_the_oldest_arrival() -> None:
    policy = BatchPolicy(LIMITS)
    policy.offer(Lane.INTERACTIVE, (5,), 1.0)
    policy.announce()
    assert policy.decide(1.0) == Wait(1.01)
    policy.offer(Lane.INTERACTIVE, (5,), 1.009)
    assert policy.decide(1.009) == Wait(1.01)
    decision = policy.decide(1.01)
    assert isinstance(decision, Run)
    assert (decision.reason, len(decision.entries)) == (Reason.WAITED, 2)


def test_clients_just_answered_are_waited_for_until_all_are_back() -> None:
    policy = BatchPolicy(LIMITS)
    policy.answered(2, 1.0)
    policy.offer(Lane.INTERACTIVE, (5,), 1.001)
    assert policy.decide(1.002) == Wait(1.011)
    policy.offer(Lane.INTERACTIVE, (5,), 1.003)
    assert isinstance(policy.decide(1.003), Run)


def test_a_full_batch_does_not_wait() -> None:
    policy = BatchPolicy(LIMITS)
    policy.announce()
    policy.offer(Lane.INTERACTIVE, (100,), 1.0)
    decision = policy.decide(1.0)
    assert isinstance(decision, Run)
    assert decision.reason is Reason.FULL


def test_interactive_overtakes_bulk() -> None:
    policy = BatchPolicy(LIMITS)
    policy.offer(Lane.BULK, (50,) * 8, 0.0)
    policy.offer(Lane.INTERACTIVE, (10,), 0.5)
    run = policy.decide(0.5)
    assert isinstance(run, Run)
    assert run.entries[0].ticket.lane is Lane.INTERACTIVE


@given(st.integers(1, 100), st.integers(1, 150))
def test_neither_lane_starves_the_other(interactive: int, bulk: int) -> None:
    """With both lanes always full, bulk gets about its share of the tokens and interactive the rest."""
    policy = BatchPolicy(Limits(100, 1000, 10**9, 0.01))
    ran = dict.fromkeys(Lane, 0)
    for step in range(400):
        for lane, size in ((Lane.INTERACTIVE, interactive), (Lane.BULK, bulk)):
            if policy.queued_tokens(lane) < 300:
                policy.offer(lane, (size,) * 300, float(step))
        run = policy.decide(float(step))
        assert isinstance(run, Run)
        for entry in run.entries:
            ran[entry.ticket.lane] += entry.tokens
    share = ran[Lane.BULK] / sum(ran.values())
    assert 0.2 <= share <= 0.75
