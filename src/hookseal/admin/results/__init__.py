"""The results of an Admin, which are what commands print with `--json`: field by field, in this order.

A field that is declared with `HIDDEN` is not printed, and a secret is printed as null unless somebody asks for it. No
repr shows a secret. Times have the zone UTC. A url and a snippet are left out of the repr, because they may contain
what is confidential. There is a module for each subject, since Python takes half a millisecond for each class.
"""
