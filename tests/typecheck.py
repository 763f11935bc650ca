"""The type checker of the library's functions while tests run: shapes too, and an int is a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
