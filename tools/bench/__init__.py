"""`make bench`: what a delivery costs in hookseal and in other libraries, in one run on one machine.

`plan` defines what is measured, `measures` is one round of each kind, on the servers of `tools.harness`, `contenders`
are the compared libraries, `run` alternates the rounds, `results` is the stored form (docs/proof/performance.json), and
`pages` and `scaling` are pure functions of it.
"""
