AllowedNetwork = object
def parse_private_upstreams(text: str) -> tuple: return ()
