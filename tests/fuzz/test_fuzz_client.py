"""A short run of the fuzzers; ``make fuzz`` runs them for as long as you like."""

from fuzz_client import fuzz


async def test_random_answers():
    outcomes = await fuzz(8.0, first_seed=1, cases=300)
    assert outcomes["ok"] > 0
    assert len(outcomes) > 4
