"""How much the property tests try: ``HYPOTHESIS_PROFILE=long`` for a night, else a few seconds.

Imported before any test is: what `@settings` does not name, it takes from the profile of that moment.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline, and no complaint of slow input: the machines that run this are shared, and time is not
# what these tests measure.
TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("short", max_examples=60, **TIMELESS)
settings.register_profile("long", max_examples=5000, **TIMELESS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
