"""How a request that cannot be let through is refused: E13 and E14, with the parameter at fault."""

from apps.core.errors import GatewayError


def missing(param: str) -> GatewayError:
    """Return the error for a parameter that has to be there."""
    message = f"Missing required parameter: '{param}'."
    return _invalid("missing_required_parameter", param, message)


def wrong_type(param: str, expected: str) -> GatewayError:
    """Return the error for a value of another type."""
    return _invalid("invalid_type", param, f"Invalid type for '{param}': expected {expected}.")


def wrong_value(param: str, expected: str) -> GatewayError:
    """Return the error for a value of the right type that cannot be."""
    return _invalid("invalid_value", param, f"Invalid value for '{param}': expected {expected}.")


def above(param: str, maximum: int) -> GatewayError:
    """Return the error for a number that is too large."""
    message = f"Invalid '{param}': expected a value of at most {maximum}."
    return _invalid("integer_above_max_value", param, message)


def below_one(param: str) -> GatewayError:
    """Return the error for a number that is not positive."""
    message = f"Invalid '{param}': expected a value of at least 1."
    return _invalid("integer_below_min_value", param, message)


def unsupported(param: str) -> GatewayError:
    """Return the error for what cannot be metered here."""
    message = f"The parameter '{param}' is not supported by this gateway."
    return GatewayError("E14", param=param, message=message)


def inexpressible(param: str) -> GatewayError:
    """Return the error for what the dialect of the model's provider has no words for."""
    message = f"The parameter '{param}' cannot be passed on to the provider of this model."
    return GatewayError("E14", param=param, message=message)


def _invalid(code: str, param: str, message: str) -> GatewayError:
    return GatewayError("E13", code=code, param=param, message=message)
