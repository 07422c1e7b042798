"""Deploy a model as a version: planned, idempotent, probed before it takes traffic, reversible.

deploy          the verb: facts about the model, plan, apply
plan            what every target speaks in: request, plan, outcome
signature_gate  what would break a client of the version now live
golden          requests with their recorded answers, stored in the model; how answers are compared
probe           a real server on the staged files, asked the golden requests
targets         one module a target, the same few functions
"""
