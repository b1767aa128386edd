"""Which releases together satisfy what is required: a pure function of a catalogue, and why when none do."""
