"""What `chaos.py` is made of: a plan of faults, the training that they befall, and the account of it."""
