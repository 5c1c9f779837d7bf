"""
The script of alloc's page, run in a JavaScript engine with the little of a browser that
it needs.
"""

from __future__ import annotations

import json
from typing import Any

import quickjs  # type: ignore[import-untyped]

from twisted.trial.unittest import SynchronousTestCase

from mpush_tw.transports.alloc import sender_page

BROWSER = """
const requests = [], listeners = {}, elements = {};
let answers = {}, timers = 0;
function element(id) {
  return elements[id] ??= {
    id, value: "", checked: false, disabled: false, hidden: false, textContent: "",
    classList: {
      names: new Set(),
      toggle(name, on) { on ? this.names.add(name) : this.names.delete(name); },
    },
    children: [],
    replaceChildren(...children) { this.children = children; },
    addEventListener(name, listener) { listeners[id + " " + name] = listener; },
    insertCell() { const cell = {}; this.children.push(cell); return cell; },
  };
}
const texts = [{ dataset: { text: "send" }, textContent: "" }];
const document = {
  hidden: false, documentElement: { lang: "" },
  getElementById: element, querySelectorAll: () => texts,
  createElement: () => { delete elements.made; return element("made"); },
};
const navigator = { language: LANGUAGE };
const setInterval = () => { timers++; };
async function fetch(path, options) {
  requests.push([path, options ?? null]);
  const answer = answers[path] ?? { status: 200, text: "[]" };
  if (answer.status === 0) throw new Error("unreachable");
  return {
    status: answer.status, ok: answer.status === 200,
    text: async () => answer.text, json: async () => JSON.parse(answer.text),
  };
}
function happen(what, target) {
  return listeners[what]({ preventDefault() {}, target });
}
"""


class PageTestCase(SynchronousTestCase):
    """
    The page, opened in a browser that speaks English.
    """

    language = "en-GB"

    def setUp(self) -> None:
        page = sender_page().body.decode()
        _, _, rest = page.partition("<script>")
        script, _, _ = rest.partition("</script>")
        self.context = quickjs.Context()
        self.run_script(BROWSER.replace("LANGUAGE", json.dumps(self.language)))
        # Const and function stay visible for the test beside what it adds.
        self.run_script(script.replace('"use strict";', ""))
        for name, value in (("userId", "user-0"), ("hello", "hello mpush")):
            self.fill(name, value)

    def run_script(self, script: str) -> Any:
        """
        Run a script, and everything that it has begun.
        """
        result = self.context.eval(script)
        while self.context.execute_pending_job():
            pass
        return result

    def look(self, expression: str) -> Any:
        """
        Give a value of the page.
        """
        return json.loads(self.run_script(f"JSON.stringify({expression})") or "null")

    def fill(self, name: str, value: str) -> None:
        """
        Type into a field.
        """
        self.run_script(f"element({json.dumps(name)}).value = {json.dumps(value)}; 0")

    def answer(self, path: str, status: int, text: str) -> None:
        """
        Have requests for a path answered so.
        """
        answer = json.dumps({"status": status, "text": text})
        self.run_script(f"answers[{json.dumps(path)}] = {answer}; 0")

    def tick(self, checked: bool) -> None:
        """
        Click at Broadcast.
        """
        self.run_script(
            f"element('broadcast').checked = {json.dumps(checked)};"
            "happen('broadcast change', element('broadcast')); 0"
        )

    def send(self) -> None:
        """
        Click at Send.
        """
        self.run_script("happen('order submit'); 0")

    @property
    def orders(self) -> list[Any]:
        """
        What was sent to C{push}, with its options.
        """
        requests = self.look("requests")
        return [options for path, options in requests if path == "push"]

    @property
    def shown(self) -> str:
        """
        The answer on the page.
        """
        text: str = self.look("element('answer').textContent")
        return text

    @property
    def bad(self) -> bool:
        """
        Whether it is shown as a problem.
        """
        return bool(self.look("element('answer').classList.names.has('bad')"))


class SendTests(PageTestCase):
    """
    Ordering pushes.
    """

    def test_user(self) -> None:
        """
        What was typed is sent as JSON, and the answer is shown.
        """
        self.answer("push", 200, "on its way")
        self.send()
        (order,) = self.orders
        self.assertEqual(order["method"], "POST")
        self.assertEqual(
            json.loads(order["body"]),
            {
                "userId": "user-0",
                "hello": "hello mpush",
                "broadcast": False,
                "condition": "",
            },
        )
        self.assertEqual((self.shown, self.bad), ("on its way", False))

    def test_broadcast(self) -> None:
        """
        A broadcast needs no user, and takes the condition along.
        """
        self.fill("userId", "")
        self.fill("condition", "true")
        self.tick(True)
        self.assertTrue(self.look("element('userId').disabled"))
        self.assertFalse(self.look("element('condition').disabled"))
        self.send()
        body = json.loads(self.orders[0]["body"])
        self.assertEqual((body["broadcast"], body["condition"]), (True, "true"))

    def test_condition_of_a_broadcast_only(self) -> None:
        """
        A condition that was typed before does not go with a push to one user.
        """
        self.tick(True)
        self.fill("condition", "true")
        self.tick(False)
        self.send()
        self.assertEqual(json.loads(self.orders[0]["body"])["condition"], "")

    def test_no_user(self) -> None:
        """
        Without a user nothing is sent, and the page says why.
        """
        self.fill("userId", " ")
        self.send()
        self.assertEqual(self.orders, [])
        self.assertTrue(self.bad)
        self.assertIn("Who is it for?", self.shown)

    def test_no_content(self) -> None:
        """
        Nor is an empty text.
        """
        self.fill("hello", "")
        self.send()
        self.assertEqual(self.orders, [])
        self.assertIn("empty", self.shown)

    def test_refused(self) -> None:
        """
        The reason of a refusal is shown.
        """
        self.answer("push", 400, "expected a userId")
        self.send()
        self.assertEqual((self.shown, self.bad), ("expected a userId", True))

    def test_token(self) -> None:
        """
        Where a token is asked for a field for it appears, and what is typed is sent.
        """
        self.answer("push", 401, "expected a token")
        self.run_script("element('tokenRow').hidden = true; 0")
        self.send()
        self.assertNotIn("Authorization", self.orders[0]["headers"])
        self.assertFalse(self.look("element('tokenRow').hidden"))
        self.fill("token", "t")
        self.send()
        self.assertEqual(self.orders[1]["headers"]["Authorization"], "Bearer t")

    def test_unreachable(self) -> None:
        """
        That there is no answer is said, too.
        """
        self.answer("push", 0, "")
        self.send()
        self.assertEqual((self.shown, self.bad), ("No answer: unreachable", True))


class ServersTests(PageTestCase):
    """
    The table of servers.
    """

    def rows(self) -> list[list[str]]:
        """
        What it shows.
        """
        table = self.look(
            "element('servers').children.map(r => r.children.map(c => c.textContent))"
        )
        return [[str(cell) for cell in row] for row in table]

    def test_servers(self) -> None:
        """
        It shows the servers, and a dash where nobody has counted.
        """
        server = {"host": "10.0.0.5", "port": 3000, "online": 7, "weight": 1, "id": "x"}
        second = {**server, "port": 3100, "online": None}
        self.answer("list.json", 200, json.dumps([server, second]))
        self.run_script("look(); 0")
        self.assertEqual(
            self.rows(), [["10.0.0.5:3000", "7", "1"], ["10.0.0.5:3100", "–", "1"]]
        )

    def test_none(self) -> None:
        """
        Without servers, or without an answer, it says so.
        """
        for status in (200, 0):
            self.answer("list.json", status, "[]")
            self.run_script("look(); 0")
            self.assertEqual(self.rows(), [["No server is known."]])

    def test_goes_on_looking(self) -> None:
        """
        It looks when it is opened, and again from time to time.
        """
        self.assertEqual(self.look("requests")[0], ["list.json", None])
        self.assertEqual(self.look("timers"), 1)


class ChineseTests(PageTestCase):
    """
    A browser that speaks Chinese.
    """

    language = "zh-CN"

    def test_language(self) -> None:
        """
        The page is Chinese, and English at a click.
        """
        self.assertEqual(self.look("document.documentElement.lang"), "zh")
        self.assertEqual(self.look("texts[0].textContent"), "发送")
        self.run_script("happen('language click'); 0")
        self.assertEqual(self.look("texts[0].textContent"), "Send To Client")
        self.assertEqual(self.look("document.documentElement.lang"), "en")
