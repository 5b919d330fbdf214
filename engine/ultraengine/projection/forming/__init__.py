"""Making the next batch of a target while the last one is sent.

driver.py   groups that wait -> a batch, large groups on another thread
"""
