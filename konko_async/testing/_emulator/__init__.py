"""The emulator: a server on this machine that speaks the Konko API."""
