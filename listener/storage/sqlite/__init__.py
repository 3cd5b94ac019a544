"""The ledger in one SQLite file.

Files of the same name do the same on PostgreSQL.

- ``ledger``: a ledger that is being served; ``readable`` is the part of it that only reads.
- ``writer``: the one writer; ``commit`` is one commit of it, ``plain`` the short way to the same
  rows, ``bulk`` one statement for many of them; ``checkpoints`` moves the log into the file.
- ``reading``, ``searching``: a function for each question.
- ``statements``: the SQL that a commit reads and writes with; ``selects``: that of all questions.
  ``keys``, ``verify`` and ``replay`` have their own.
- ``keys``: the keys in the file.
- ``location``, ``opening``, ``schema``: which file it is, how it is opened, and its tables.
- ``connection``, ``faults``: a connection with its transactions, and what SQLite reports.
- ``lock``, ``epoch``, ``files``: one service at a time, and whether the file is still the one that
  it served, or serves.
- ``pages``, ``desk``, ``checkup``, ``backup``: what commands do beside the service.
- ``verify``, ``replay``, ``rebuild``: check that the entries add up to the states; compute these
  again.
"""
