"""Streams and their followers: a commit rings the bell, and each subscription reads on."""
