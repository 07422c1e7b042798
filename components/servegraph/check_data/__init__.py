"""Decides whether there is anything new to train on."""
