"""kill -9 at random moments; the long form is `make torture-runs`."""

from tests.runs import crash


def test_what_was_acknowledged_survives_a_kill():
    assert crash.main(40, longest=0.15) > 20
