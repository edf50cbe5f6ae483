"""`make bench`: what a delivery costs in hookseal and in other libraries, in one run on one machine.

`plan` defines what is measured, `site` runs the servers, `contenders` are the compared libraries, `run` measures, and
`results` is the stored form (docs/proof/performance.json). `page`, `headlines`, `bars` and `scaling` are pure
functions of it.
"""
