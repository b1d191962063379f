"""What eval/run.py is made of: trials of a benchmark, what they leave, and the tables made of that.

A subject (`subjects`) is a benchmark or a row of the proxy suite; a contender (`contenders`) is a model or a floor that learns nothing. A
trial (`trial`) trains one contender on one subject with one seed and leaves metrics.json and cases.parquet (`store`); `tables` and
`comparisons` make results.parquet, results.json and results.md of all trials that are there.
"""
