"""
Tests for L{mpush_tw.config.render}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.config import hocon, load_settings
from mpush_tw.config.render import MASKED, mask, render, render_value

# A text of six asterisks is what a hidden secret looks like, and becomes a comment.
texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12).filter(
    lambda text: MASKED not in text
)
trees: st.SearchStrategy[Any] = st.dictionaries(
    texts,
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**31), 2**31), texts),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=3,
)


def spelled(value: Any) -> Any:
    """
    Reduce scalars to their spelling, which is all that HOCON keeps of C{"7"} and C{7}.
    """
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spelled(item) for item in value]
    return value if value is None or isinstance(value, bool) else str(value)


class MaskTests(SynchronousTestCase):
    """
    What nobody may see.
    """

    def test_secret_keys(self) -> None:
        """Values of keys that name a secret are hidden, numbers too."""
        for key in (
            "private-key",
            "password",
            "admin-server-password",
            "digest",
            "client-secret",
            "push-token",
            "PASSWORD",
        ):
            self.assertEqual(mask({key: "x"}), {key: MASKED})
            self.assertEqual(mask({"a": {key: 7}}), {"a": {key: MASKED}})

    def test_below_a_secret_key(self) -> None:
        """A secret key that is a list or an object hides all that is in it."""
        self.assertEqual(
            mask({"tokens": ["a", {"b": "c"}]}), {"tokens": [MASKED, {"b": MASKED}]}
        )

    def test_empty_stays_empty(self) -> None:
        """A secret that is not set is seen not to be set."""
        self.assertEqual(mask({"password": ""}), {"password": ""})

    def test_other_keys(self) -> None:
        """All else stays, the public key among it."""
        tree = {"public-key": "x", "a": [1, {"b": None}]}
        self.assertEqual(mask(tree), tree)

    def test_node_passwords(self) -> None:
        """The password behind a Redis node's port is hidden, in list and object."""
        nodes = ["a:1", "a:1:x", "[::1]:1:x:y"]
        hidden = ["a:1", f"a:1:{MASKED}", f"[::1]:1:{MASKED}"]
        self.assertEqual(mask({"nodes": nodes}), {"nodes": hidden})
        self.assertEqual(mask({"nodes": {"0": nodes[1]}}), {"nodes": {"0": hidden[1]}})

    def test_original_stays(self) -> None:
        """The tree that is masked is not changed."""
        tree = {"a": {"password": "x"}}
        mask(tree)
        self.assertEqual(tree, {"a": {"password": "x"}})

    def test_whole_configuration(self) -> None:
        """No secret of a whole configuration is left."""
        loaded = load_settings(
            None,
            [
                "mp.redis.nodes.0=h:1:hunter2",
                "mp.redis.password=hunter2",
                "mp.zk.server-address=h",
                "mp.zk.digest=hunter2",
                "mp.net.admin-server-password=hunter2",
                "mp.security.allow-sample-key=true",
            ],
            {},
        )
        self.assertIn("hunter2", str(loaded.tree))
        self.assertNotIn("hunter2", render(mask(loaded.tree)))


class RenderTests(SynchronousTestCase):
    """
    Data as HOCON.
    """

    def test_plain_words_have_no_quotes(self) -> None:
        """Words, paths, addresses, sizes and durations are written as people do."""
        for text in ("tcp", "/opt/mp", "127.0.0.1", "10k", "100ms", "com.x.Y"):
            self.assertEqual(render_value(text), text)

    def test_other_texts_have_quotes(self) -> None:
        """Everything else is quoted."""
        for text in ("", "a:1", "true", "null", "a b", "a//b", "1e5", "-", "中"):
            self.assertEqual(render_value(text), f'"{text}"')

    def test_shape(self) -> None:
        """Objects have braces and lines of their own, lists one line."""
        self.assertEqual(
            render({"a": {"b-c": 1, "d.e": ["x", {"y": None}]}, "f": {}}),
            'a {\n    b-c = 1\n    "d.e" = [x, { y: null }]\n}\nf = {}\n',
        )

    def test_include_as_a_key_is_quoted(self) -> None:
        """A key that is a word of the language reads back as a key."""
        self.assertEqual(render({"include": {"a": 1}}), '"include" {\n    a = 1\n}\n')

    def test_masked_values_are_comments(self) -> None:
        """A hidden secret cannot become a password when the text is pasted."""
        text = render(mask({"a": {"password": "x", "nodes": ["h:1:x"]}}))
        self.assertIn(f'\n    # password = "{MASKED}"\n', text)
        self.assertIn(f'\n    # nodes = ["h:1:{MASKED}"]\n', text)
        self.assertEqual(hocon.merge([hocon.read(text, "t", {})]), {"a": {}})

    @given(trees)
    def test_reads_back(self, tree: dict[str, Any]) -> None:
        """What is written reads back as the same data."""
        read = hocon.merge([hocon.read(render(tree), "t", {})])
        self.assertEqual(spelled(read), spelled(tree))

    def test_whole_configuration(self) -> None:
        """A whole configuration reads back as the same settings."""
        loaded = load_settings(None, ["mp.net.ws-path=/a b", "mp.home=/x"], {})
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(render({"mp": loaded.tree}))
        self.assertEqual(load_settings(path, (), {}).settings, loaded.settings)
