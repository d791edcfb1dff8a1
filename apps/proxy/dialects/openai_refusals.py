"""How a request that cannot be let through is refused: E13 and E14, with the parameter at fault."""

from apps.core.errors import GatewayError


def missing(param: str) -> GatewayError:
    """Return the error for a parameter that has to be there."""
    return GatewayError(
        "E13",
        code="missing_required_parameter",
        param=param,
        message=f"Missing required parameter: '{param}'.",
    )


def wrong_type(param: str, expected: str) -> GatewayError:
    """Return the error for a value of another type."""
    return GatewayError(
        "E13",
        code="invalid_type",
        param=param,
        message=f"Invalid type for '{param}': expected {expected}.",
    )


def wrong_value(param: str, expected: str) -> GatewayError:
    """Return the error for a value of the right type that cannot be."""
    return GatewayError(
        "E13",
        code="invalid_value",
        param=param,
        message=f"Invalid value for '{param}': expected {expected}.",
    )


def above(param: str, maximum: int) -> GatewayError:
    """Return the error for a number that is too large."""
    return GatewayError(
        "E13",
        code="integer_above_max_value",
        param=param,
        message=f"Invalid '{param}': expected a value of at most {maximum}.",
    )


def below_one(param: str) -> GatewayError:
    """Return the error for a number that is not positive."""
    return GatewayError(
        "E13",
        code="integer_below_min_value",
        param=param,
        message=f"Invalid '{param}': expected a value of at least 1.",
    )


def unsupported(param: str) -> GatewayError:
    """Return the error for what cannot be metered here."""
    return GatewayError(
        "E14", param=param, message=f"The parameter '{param}' is not supported by this gateway."
    )
