"""The libraries with which hookseal is compared.

Most run in their own environments, with the standard library, aiohttp, uvloop and the packages of their file in
requirements/bench/, and nothing of hookseal.
"""
