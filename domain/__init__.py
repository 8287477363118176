"""The rules of orders and customers: one file an aggregate, each with state, `evolve` and the decisions, in that order.

Nothing here does I/O. A decision takes the aggregate's state (None: it does not exist), a command of the contract and a
context, and returns the events that the command leads to (none: nothing changes) or raises a Rejection.
"""
