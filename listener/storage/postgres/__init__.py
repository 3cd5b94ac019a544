"""The ledger on PostgreSQL: any number of equal listeners on one database.

Files of the same name do the same on SQLite.

- ``ledger``: a ledger as one node serves it; ``readable`` is the part of it that only reads.
- ``writer``: the writer of one node; ``statements`` has the two statements of a batch, and
  ``rehearsal`` tries whether they would succeed.
- ``reading``, ``searching``: a function for each question; ``selects`` has their SQL.
- ``errands``, ``keys``: small work that needs no lock, and the keys in the database.
- ``bell``: events that any node has recorded, published in order.
- ``node``, ``turns``, ``presence``: heartbeat, leases, and who is connected where.
- ``location``, ``passfile``: which server, and its password; ``connection``, ``channel``: how it is
  reached, and reached again.
- ``watch``, ``waiting``: requests whose answer was lost, and commits that wait for a standby.
- ``schema``: the tables and functions; ``rows`` and ``texts`` convert what is in them.
- ``beside``: one connection for a command; ``pages``, ``desk``, ``checkup``, ``backup`` use it.
- ``copying``, ``importing``: a whole ledger, moved between a file and PostgreSQL.
- ``verify``, ``rebuild``: check that the entries add up to the states; compute these again.
"""
