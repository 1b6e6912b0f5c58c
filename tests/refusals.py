"""Many inputs that must be refused, in one test that lists all offenders."""

import re


def assert_refused(function, cases, error=ValueError):
    """Fails with every case that is taken, or refused in other words.

    Args:
        function: What must refuse.
        cases: Rows of its arguments and, last, a regular expression for what
            the error says.
        error: Class of the error.
    """
    offenders = []
    for *arguments, message in cases:
        try:
            function(*arguments)
            said = "no error"
        except error as refusal:
            said = str(refusal)
        if not re.search(message, said):
            offenders.append(f"{arguments!r:.200}: {said:.500}")
    assert not offenders, "\n".join(["", *offenders])
