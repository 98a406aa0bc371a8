"""How much the property tests try: the same few seconds in each run, or more than ever.

``HYPOTHESIS_PROFILE=long`` is for a night, and draws anew; what it finds becomes an ``@example``.

Imported before any test is: what `@settings` does not name, it takes from the profile of that moment.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline, and no complaint of slow input: the machines that run this are shared, and time is not
# what these tests measure.
TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("short", max_examples=60, derandomize=True, **TIMELESS)
settings.register_profile("long", max_examples=5000, **TIMELESS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
