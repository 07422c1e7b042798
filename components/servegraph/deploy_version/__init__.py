"""Deploy a model as a version: planned, idempotent, probed before it takes traffic, reversible.

deploy          the verb: facts about the model, plan, apply
plan            what every target speaks in: request, plan, outcome
served_graph    what of a model a version is: its own files, one MetaGraph
signature_gate  what would break a client of the version now live
golden          requests with their recorded answers, stored in the model; how answers are compared
probe           a real server on the staged files, asked the golden requests
remote          what every target that is a service speaks in; its few functions
rollout         which steps are missing, from what is wanted and what is there
converge        the loop: look, do the first missing step, look again
targets         one module a target, the same few functions
"""
