"""How moments are written on the pages of the administration: to the second, in UTC."""
