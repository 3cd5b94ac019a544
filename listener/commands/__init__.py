"""The commands of ``listener``; what they need is imported when they run, so that help is quick."""
