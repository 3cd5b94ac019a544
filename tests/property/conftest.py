"""How examples are looked for: as many as always, and however slow the machine is."""

from hypothesis import settings

settings.register_profile("listener", deadline=None)
settings.load_profile("listener")
