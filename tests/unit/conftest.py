"""How much the property tests try: ``HYPOTHESIS_PROFILE=long`` for a night, else a few seconds."""

import os

from hypothesis import HealthCheck, settings

# No deadline: the machines that run this are shared, and time is not what these tests measure.
settings.register_profile("short", deadline=None, max_examples=60)
settings.register_profile(
    "long", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
