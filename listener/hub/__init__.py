"""Who follows which stream: a commit rings the bell, and each subscription reads on."""
