"""What a model does under the limits of a machine: load time, memory, latency, rate, and the settings that help.

measure   the flow: a server in a limited child, asked from outside; then settings tried against it
limits    CPUs and memory of the child, and how they were enforced
limited   the child's side: takes the limits upon itself, then is the server
questions sample requests, made in a child that has TensorFlow
load      asks over HTTP and takes the times
tuning    which settings are tried, in which order
result    the measurement as values and JSON
"""
