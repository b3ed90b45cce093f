"""The parts of `language.py`: the text and the model, the runs, and what is made of them."""
