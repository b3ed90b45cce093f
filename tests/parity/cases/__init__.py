"""The cases, by family. Each returns a model, its data and how it is compiled."""
