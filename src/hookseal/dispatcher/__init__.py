"""Dispatcher: decides what a delivery needs and sends it. It never sees a secret."""
