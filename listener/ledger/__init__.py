"""The ledger: its nouns, their arithmetic, and the protocol that every back-end implements.

- ``model``: the nouns: fact, entry, transaction, cancel, event.
- ``status``: Pockyt's words, how statuses join, and why a notification is held.
- ``refunds``: how much of a payment went back.
- ``belief``: what is believed of a transaction: its status, and what that rests on.
- ``summary``: what its entries add up to so far, so that they need not be read again.
- ``history``: those entries as they arrive, and which sale judges them.
- ``schedule``: when Pockyt is asked about a transaction.
- ``transaction``: a transaction after one more entry: how its cancel ends, what its tills are told.
- ``sale``: a sale until its transaction number is known.
- ``chain``: the hashes.
- ``wanted``: what must be read before a group of facts can be decided.
- ``batch``: what a group of facts becomes: repeats, new entries, and the offsets of their events.
- ``replay``: the same once more, for ``listener verify``.
- ``promise``: the protocol of the back-ends.
- ``results``: what a ledger returns when a fact is recorded, and when it is read.
- ``scope``: which part of the ledger is read.
- ``nodes``: what the nodes that share a ledger tell each other.
"""
