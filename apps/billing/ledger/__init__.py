"""The only writer of money: holds, settlements and postings, in batches, on every engine.

`commands` says what may be asked, `batch` decides purely what that changes, `store`, `postgres` and
`sqlite` read and write it inside one transaction. Nothing outside this package changes a balance.
"""
