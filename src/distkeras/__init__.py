"""Distributed Keras: train Keras 3 models on Spark DataFrames with optimizers that rarely communicate."""
