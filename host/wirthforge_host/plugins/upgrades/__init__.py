"""From one release of a plugin to another while calls go on, and back."""
