"""How the threads that share a matrix product wait for each other. To be decided before torch is imported.

torch's OpenMP library (libgomp) lets a thread that has nothing to do spin for up to milliseconds before it sleeps. That
is fast on idle processors; as soon as anything else wants one, threads spin for partners that do not run, and a batch
takes many times as long. Never spinning makes short batches slow, because they wait hundreds of times for microseconds.
So threads spin for about as long as the pauses inside a batch last, and then sleep. docs/performance.md has the
measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

# Turns of libgomp's waiting loop: tens of microseconds.
SPIN_COUNT = 1000
# Any of these says that the user has decided.
_DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_policy(environment: Mapping[str, str]) -> tuple[str, str, str]:
    """The variable that decides, its value, and where that comes from: the variable itself, or "default"."""
    for name in _DECIDED_BY:
        if environment.get(name):
            return name, environment[name], name
    return "GOMP_SPINCOUNT", str(SPIN_COUNT), "default"


def set_wait_policy(environment: MutableMapping[str, str]) -> tuple[str, str, str]:
    """Set what wait_policy says; the user's own choice stays. Without effect once torch is imported."""
    name, value, origin = wait_policy(environment)
    environment.setdefault(name, value)
    return name, value, origin
