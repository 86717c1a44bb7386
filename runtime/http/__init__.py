"""HTTP/1.1 on the wire: the engine under the gateway, the queue-proxy and the broker's ingress.

An *exchange* is one request with its answer. `server` accepts connections, reads one request after another from
each and calls a plain function with the exchange as soon as the head is complete; the function answers it, now or
later, or hands it to `forward`, which sends it through an `upstream` pool of keep-alive connections and streams
the answer back.

Everything is callbacks on transports: no task and no future is made for a request. What is read is either one
unambiguous message or it is refused; no byte of a message that could be read in two ways reaches a back end.
Names of headers are in lower case everywhere, values are bytes as sent.

Modules: `settings` (limits, each with its reason), `messages` (heads, hop-by-hop rules), `chunks` and `reader`
(bytes to requests), `exchange`, `server`, `connect`, `upstream` and `upstream_connection` (the pool and what is in
it), `forward`.
"""
