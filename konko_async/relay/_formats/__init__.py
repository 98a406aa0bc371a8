"""The wire formats that a relay speaks to browsers."""
