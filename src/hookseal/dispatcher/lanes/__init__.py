"""Lanes: how many requests each endpoint may have in flight, and whose turn it is. Pure: time is passed in.

Each worker keeps a `Lane` for an endpoint. Its state says whether a request may begin, and where a ring waits:

| state | is it, if | a request begins | a further ring |
|---|---|---|---|
| unknown | no claim and no look has read its settings | if none is in flight | waits here, up to 256 |
| free | `limit`, share and tokens allow one more | in its turn | waits here: a round more; with a rate what may begin |
| full | it has no room | when it has room | as free; with a rate it is parked at once |
| locked | its row was found locked, at most 0.2 s ago | afterwards | as before; parked after the 25th time in a row |
| closed | it is held, or its breaker opened, at most 5 s ago | afterwards, to ask PostgreSQL | is parked |
| without share | more workers than requests are allowed | never here | is parked |

A closed or locked lane stays so until its time, and one without share until workers come or go, whatever happens.
To park a ring means that its delivery waits in PostgreSQL (`waiting_for`), where every worker finds it.

| event | what changes | next state |
|---|---|---|
| the settings are read | limit, rate and share; a claim gives back the excess | free, full or without share |
| the claim finds the row locked | its rings are first in the lane again | locked |
| the claim of what is no probe finds the endpoint held | nothing | closed |
| a request begins | one more in flight, one token less | free or full |
| an answer without trouble | the limit grows: doubles up to the threshold, then by one for each round | free or full |
| the same with all of a default limit in use | the limit grows by 1/8, up to the peak, if quick | free or full |
| an answer that means trouble | the limit is halved, once for all that were in flight together | free or full |
| the tenth of these in a row | the breaker of the endpoint opens, for all workers | closed |
| a request ends without an outcome, or one that says nothing | one less in flight | free or full |
| a worker closes the breaker after a probe | the limit is 1, and may double up to half of the share | free or full |
| workers come or go | the share; a lane without trouble takes the whole of it | free, full or without share |

A lane whose deliveries wait in PostgreSQL is crowded (`crowded.py`). A worker knows up to 10,000 of them:

| place | what is there | goes on |
|---|---|---|
| `_turns` | lanes that may be asked for their oldest deliveries now | to `_later` when it is looked at |
| `_later` | looked at within 0.1 s, or had fewer | to `_turns` after 0.1 s, with room, or if it had as many |
| `_empty` | had none when it was asked last | to `_turns`, at most 256 of these lanes in 0.1 s |
| in none | an ordered endpoint: the claim of its head says when there is more (`expect`) | to `_turns` |

With room for all that waits during 2 s a lane is calm: it is deleted from the table of crowded lanes, and forgotten.

Among lanes that are free, tenants take turns, and the endpoints of each tenant take turns (`worker_lanes.py`). Three
bounds keep one from costing others more: a tenant gets 8 of 9 slots, 512 rings wait here for lanes without room, and
many requests to endpoints that did not answer last begin only after a pause of 20 ms.
"""
