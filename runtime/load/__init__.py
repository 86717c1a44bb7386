"""Load on a URL or a function, and what came of it.

`arrivals` says when requests are due, `requests` what is sent, `lane` keeps the requests of one class and its
connections, `generator` runs the lanes together; `record` counts what came of them in histograms of bounded size
and error, `report` is all that is known at the end, which text, JSON, plots and `conditions` read.
"""
