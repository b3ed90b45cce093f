"""Distributed Keras: train Keras 3 models on Apache Spark DataFrames with optimizers that rarely communicate."""
