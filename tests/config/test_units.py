"""
Tests for L{mpush_tw.config.units}: the rows of operations 1.4.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config.units import INT32_MAX, boolean, duration, integer, size


class SizeTests(SynchronousTestCase):
    """
    Numbers of bytes.
    """

    def assert_sizes(self, expected: int, *texts: str) -> None:
        for text in texts:
            self.assertEqual(size(text, most=2**90), expected, text)

    def test_bare_number_is_bytes(self) -> None:
        """A number without a unit is a number of bytes."""
        self.assert_sizes(512, "512", "512B", "512b", "512byte", "512 bytes")

    def test_binary_units(self) -> None:
        """Every spelling of the units of 1024 is understood."""
        for power, (letter, name) in enumerate(
            zip(
                "KMGTPEZY",
                ("kibi", "mebi", "gibi", "tebi", "pebi", "exbi", "zebi", "yobi"),
                strict=True,
            ),
            start=1,
        ):
            self.assert_sizes(
                3 * 1024**power,
                f"3{letter}",
                f"3{letter.lower()}",
                f"3{letter}i",
                f"3{letter}iB",
                f"3{name}byte",
                f"3{name}bytes",
            )

    def test_decimal_units(self) -> None:
        """Every spelling of the units of 1000 is understood."""
        for power, (letters, name) in enumerate(
            zip(
                ("kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"),
                ("kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta"),
                strict=True,
            ),
            start=1,
        ):
            self.assert_sizes(
                3 * 1000**power, f"3{letters}", f"3{name}byte", f"3{name}bytes"
            )

    def test_examples(self) -> None:
        """The examples of the specification come out as given there."""
        for text, expected in (
            ("10k", 10240),
            ("10kB", 10000),
            ("1.5k", 1536),
            ("5m", 5242880),
            ("10m", 10485760),
            ("0", 0),
        ):
            self.assertEqual(size(text), expected, text)

    def test_fraction_is_truncated(self) -> None:
        """Fractions of a byte are dropped, not rounded."""
        self.assertEqual(size("1.9"), 1)
        self.assertEqual(size("1.0009kB"), 1000)

    def test_blank_before_the_unit(self) -> None:
        """A blank may stand between the number and its unit."""
        self.assertEqual(size("10 k"), 10240)

    def test_units_are_case_sensitive(self) -> None:
        """Units that only look like the known ones are refused."""
        for text in ("1kb", "1KB", "1mb", "1mB", "10x", "1Kib", "1KIBIBYTES", "1ki"):
            self.assertRaises(ValueError, size, text)

    def test_negative_is_refused(self) -> None:
        """There are no negative sizes, not even a very small one."""
        self.assertRaises(ValueError, size, "-1")
        self.assertRaises(ValueError, size, "-0.5")

    def test_not_a_size_is_refused(self) -> None:
        """Text that is no number is refused, as are digits of other scripts."""
        for text in ("", "k", "true", "1 0", "1,5k", "0x10", "\u0661k", "1e+", "--1"):
            self.assertRaises(ValueError, size, text)

    def test_limit_is_named(self) -> None:
        """A size above what its key can hold is refused, with the limits."""
        self.assertEqual(size("2147483647", most=INT32_MAX), INT32_MAX)
        error = self.assertRaises(ValueError, size, "2g", most=INT32_MAX)
        self.assertIn("from 0 to 2147483647 bytes", str(error))

    def test_exponents(self) -> None:
        """Exponents count, and an absurd one is refused without being computed."""
        self.assertEqual(size("1e3"), 1000)
        self.assertEqual(size("1e3k"), 1024000)
        self.assertEqual(size("5e-1k"), 512)
        self.assertRaises(ValueError, size, "1e999999999")
        self.assertRaises(ValueError, size, "1e" + "9" * 5000)

    @given(st.integers(0, 2**63 - 1))
    def test_whole_bytes_survive(self, number: int) -> None:
        """Every number of bytes up to 64 bits is read exactly."""
        self.assertEqual(size(str(number)), number)


class DurationTests(SynchronousTestCase):
    """
    Durations, in seconds.
    """

    def test_bare_number_is_milliseconds(self) -> None:
        """A number without a unit is milliseconds."""
        self.assertEqual(duration("1500"), 1.5)

    def test_units(self) -> None:
        """Every spelling of every unit is understood."""
        for seconds, texts in (
            (2.0, ("2000000000ns", "2000000000 nanoseconds", "2e9nano", "2e9nanos")),
            (2.0, ("2000000us", "2000000micro", "2000000micros")),
            (2.0, ("2000000microseconds", "2000000microsecond", "2e9nanosecond")),
            (2.0, ("2000ms", "2000milli", "2000millis", "2000millisecond")),
            (2.0, ("2000milliseconds", "2s", "2second", "2 seconds")),
            (120.0, ("2m", "2minute", "2minutes")),
            (7200.0, ("2h", "2hour", "2hours")),
            (172800.0, ("2d", "2day", "2days")),
        ):
            for text in texts:
                self.assertEqual(duration(text), seconds, text)

    def test_fractions(self) -> None:
        """Fractions of a unit count."""
        self.assertEqual(duration("1.5s"), 1.5)
        self.assertEqual(duration("1.001s"), 1.001)

    def test_below_a_millisecond_is_dropped(self) -> None:
        """What is shorter than a millisecond does not count."""
        self.assertEqual(duration("10us"), 0.0)
        self.assertEqual(duration("1.0009s"), 1.0)

    def test_whole_seconds(self) -> None:
        """Keys that are kept in seconds lose the rest."""
        self.assertEqual(duration("1999ms", whole_seconds=True), 1.0)

    def test_units_are_case_sensitive(self) -> None:
        """Units in capitals, and units that HOCON does not know, are refused."""
        for text in ("1M", "1S", "1min", "1w", "1y", "1MS", "1Days"):
            self.assertRaises(ValueError, duration, text)

    def test_negative_is_refused(self) -> None:
        """There are no negative durations."""
        self.assertRaises(ValueError, duration, "-1s")

    def test_limits_are_named(self) -> None:
        """A duration outside its limits is refused, with the limits."""
        error = self.assertRaises(ValueError, duration, "999ms", least=1)
        self.assertIn("from 1 to 2147483647 seconds", str(error))
        self.assertRaises(ValueError, duration, "100000d")


class IntegerTests(SynchronousTestCase):
    """
    Whole numbers.
    """

    def test_numbers(self) -> None:
        """Fractions are dropped, exponents and leading zeros understood."""
        for text, expected in (
            ("3000", 3000),
            ("3000.7", 3000),
            ("1e3", 1000),
            ("010", 10),
            ("1.0", 1),
            ("-5", -5),
            ("-5.9", -5),
        ):
            self.assertEqual(integer(text), expected, text)

    def test_not_a_number_is_refused(self) -> None:
        """Units, words and an empty text are refused."""
        for text in ("3k", "true", "null", "abc", "", "1 2"):
            self.assertRaises(ValueError, integer, text)

    def test_beyond_32_bits_is_refused(self) -> None:
        """Numbers that need more than 32 bits are refused."""
        self.assertEqual(integer("2147483647"), 2147483647)
        self.assertEqual(integer("-2147483648"), -2147483648)
        self.assertRaises(ValueError, integer, "2147483648")
        self.assertRaises(ValueError, integer, "-2147483649")


class BooleanTests(SynchronousTestCase):
    """
    Truth values.
    """

    def test_words(self) -> None:
        """Three words mean true and three mean false."""
        for text in ("true", "yes", "on"):
            self.assertIs(boolean(text), True)
        for text in ("false", "no", "off"):
            self.assertIs(boolean(text), False)

    def test_other_words_are_refused(self) -> None:
        """Numbers, capitals and an empty text are no truth values."""
        for text in ("1", "0", "True", "YES", "", "y"):
            self.assertRaises(ValueError, boolean, text)
