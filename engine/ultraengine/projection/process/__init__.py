"""The process of `ultra project`: workers side by side, and what they say of themselves.

driver.py   runs the workers and serves health, metrics and the status over HTTP
"""
