"""The demo of Godwit: guests that check themselves while their VMM is exchanged under them.

`drive` runs next to the guest, on this machine or on a lab host, and needs few modules of the standard
library only. Everything else prepares it, fetches what it left, judges it, and tells a person.
"""
