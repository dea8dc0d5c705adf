"""Secrets kept out of whatever is shown or kept: messages, logs, tables, reports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

HIDDEN = "***"
SHORTEST = 4  # a shorter value would hide ordinary text
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")  # the last @: a password may have others, or quotes
# A quote that ends what is quoted is no part.
VALUE = r"(?:[^&;#\s'\"]|['\"]+(?![\s'\",:;)\]}]|$))+"
QUERY = re.compile(
    r"(?i)([?&;#](?:[\w-]*(?:token|passw(?:or)?d|passphrase|pwd|secret|signature|sig|key|auth"
    rf"|credentials?))=){VALUE}"
)
PASSWORD = re.compile(r"://[^/\s@:]*:[^/\s]*@")
SECRET_NAMES = re.compile(r"(?i)(TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|AUTH_STRING)")


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Hides `user:password@` in addresses, secret query parameters, and the value of every
    environment variable whose name says that it is a secret."""
    text = QUERY.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))
    for name, value in environment.items():
        if SECRET_NAMES.search(name) and len(value) >= SHORTEST:
            for form in (value, quote(value, safe="")):
                text = text.replace(form, HIDDEN)
    return text


def has_credentials(address: str) -> bool:
    """Tells an address that carries a user name or password."""
    return CREDENTIALS.search(address) is not None


def has_password(address: str) -> bool:
    """Tells an address that carries a password, or another secret as a query parameter; a name
    before the @ alone is none (`abfs://container@account/`)."""
    return PASSWORD.search(address) is not None or QUERY.search(address) is not None
