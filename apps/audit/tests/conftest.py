"""What tests in this folder share: pages without collected static files."""

from tests.support.static_files import plain_static_files as plain_static_files
