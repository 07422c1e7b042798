"""Custom prediction routines that go with a model: Python around its graph, packaged once and served anywhere.

A routine lies in the model's `assets.extra/routine/`: `routine.json` says what is there, a wheel and a source
distribution hold the code, `wheels/` what it needs beyond the server, and `golden_requests.jsonl` requests with the
answers that the routine gave. Reading these files runs nothing; the code runs in a process of its own, and only in a
server that was told to trust it.
"""
