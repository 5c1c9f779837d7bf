"""
Scripts, and what Node.js makes of them.

Run as a program, this records Node's answers in C{node_values.json}. Each script is
evaluated for each of L{DEVICES} in a context of its own, as the value of a script, and
counts when that is C{true}; an error is no.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

RECORDED = Path(__file__).with_name("node_values.json")

VARIABLES = ("userId", "tags", "clientVersion", "osName", "osVersion")

DEVICES: tuple[tuple[str | None, ...], ...] = (
    ("107", "a,test,b", "android-2.1", "android", "13"),
    ("user-7", None, "ios 3.0", "iOS", None),
    ("50", "", None, None, ""),
    ("北京-20", '["vip","größe"]', "android 1.9", "Android", " 010 "),
    ("-20", "x\x00y\u2028\U0001f600", "2.10.0", "web-chrome", "0x10"),
)

EXPRESSIONS = (
    # The manual's three, and server 14.5.
    "userId % 100 < 20",
    'tags!=null && tags.indexOf("test")!=-1',
    'clientVersion.indexOf("android")!=-1 && clientVersion.replace(/[^\\d]/g,"") > 20',
    "tags",
    "1",
    "tags.length > 0",
    # Values that are no boolean.
    "'true'",
    "null",
    "undefined",
    "NaN",
    "new Boolean(true)",
    "[true]",
    "({valueOf: function () { return true }})",
    "!!tags",
    "!tags",
    "tags || true",
    "tags && true",
    # Coercion.
    "userId == 107",
    "userId === 107",
    "userId === '107'",
    "userId % 100 == 7",
    "userId < 100",
    "userId < '100'",
    "+userId === 107",
    "-userId < 0",
    "osVersion * 1 === 0",
    "osVersion == 16",
    "osVersion == 10",
    "osVersion == null",
    "osVersion === undefined",
    "tags + 1 === 'null1'",
    "tags * 1 === 0",
    "typeof tags == 'string'",
    "typeof nowhere == 'undefined'",
    "nowhere == null",
    "nowhere !== 5",
    "NaN != NaN",
    "isNaN(userId)",
    "parseInt(clientVersion, 10) === 2",
    "parseFloat(clientVersion) === 2.1",
    "Number(osVersion) > 9",
    "String(tags) == 'null'",
    "Boolean(osVersion)",
    "0.1 + 0.2 === 0.3",
    "1 < 2 < 3",
    "3 > 2 > 1",
    "0x10 === 16 && 1e3 === 1000 && '\\x41' === 'A'",
    # Operators.
    "osName == 'android' ? true : false",
    "osName ? osName.charAt(0) == 'a' : true",
    "(1, 2, true)",
    "userId > 0 && !(userId > 60) || osName === 'iOS'",
    "userId ** 2 > 3000",
    "(userId & 1) === 1",
    "userId >>> 0 === 107",
    "tags?.length === 8",
    "tags ?? true",
    "'length' in [1]",
    "void 0 === undefined",
    # Texts.
    "osName.toLowerCase() === 'android'",
    "osName.toUpperCase() === 'ANDROID'",
    "tags.length === 8",
    "tags.length === 6",
    "tags.split(',').length === 3",
    "tags.split(',').indexOf('test') >= 0",
    "tags.charAt(0) + tags.charAt(7) === 'ab'",
    "tags.charCodeAt(0) === 97",
    "tags.substring(2, 6) === 'test'",
    "tags.substr(-1) === 'b'",
    "tags.slice(-1) === 'b'",
    "tags.lastIndexOf('a') === 0",
    "tags.search(/t.st/) === 2",
    "tags.match(/t/g).length === 2",
    "tags.concat('!') === 'a,test,b!'",
    "tags.toString() === tags",
    "tags.includes('größe')",
    "tags[2] === 't'",
    "osVersion.trim() === '010'",
    "clientVersion > 'b'",
    "userId.localeCompare('107') === 0",
    "'abc'.at(-1) === 'c'",
    "userId.padStart(5, '0') === '00107'",
    "tags.replace(/[,\\s]+/g, '') === 'atestb'",
    "/^android/i.test(osName)",
    "/^[0-9]+$/.test(userId)",
    "/(\\d+)\\.(\\d+)/.exec(clientVersion)[2] > 5",
    "/\\p{Script=Han}/u.test(userId)",
    "/(?<=user-)\\d/.test(userId)",
    "/^android$/m.test('x\\n' + osName)",
    # Lists and objects.
    "['android', 'iOS'].indexOf(osName) >= 0",
    "['107', '50'].includes(userId)",
    "JSON.parse(tags).indexOf('vip') === 0",
    "tags.split(',').some(function (tag) { return tag == 'test' })",
    "tags.split(',').every(tag => tag.length < 5)",
    "[...userId].length === 3",
    "Math.max(...userId.split('')) === 7",
    "({a: userId}).a === '107'",
    "new Set([userId, '50']).size === 1",
    "(({length}) => length === 3)(userId)",
    "`${userId}-${osName}` === '107-android'",
    # Statements.
    "userId % 100 < 20;",
    "userId % 100 < 20 ; ",
    "true // a remark",
    "/* a remark */ true",
    "var x = 1; x == 1",
    "var n = userId % 100; n < 20",
    "n = userId % 100; n < 20",
    "let q = tags; q != null",
    "const v = clientVersion.split('.'); v.length > 1",
    "if (tags) true; else false",
    "if (osName == 'android') { userId > 100 } else { true }",
    "function f(x) { return x > 100 } f(userId)",
    "function f(x) { return x > 100 }",
    "var s = 0; for (var i = 0; i < userId.length; i++) s += +userId[i]; s === 8",
    "for (c of userId) if (c == '7') break; c == '7'",
    "switch (osName) { case 'android': true; break; default: false }",
    "try { tags.length > 0 } catch (e) { true }",
    "{a: true}",
    "/* c */ {a: true}",
    "a: true",
    "true\ntrue",
    "true; ;",
    "true; var y = 1",
    "true; if (false) 1",
    "'use strict'; n = 1; true",
    "throw true",
    "var tags = 'mine'; tags == 'mine'",
    "userId = '1'; userId == 1",
    "this.extra = 5; extra == 5",
    "Function('return true')()",
    "x = 1, x == 1",
    # No script at all.
    "",
    " ",
    ";",
    "}{",
    "1)(2",
    "true)//",
    "userId %",
    "return true",
    "await true",
    "'\\u{110000}'",
    '"unfinished',
    "userId == '107' andalso true",
)

_PROGRAM = """
const vm = require("vm");
const { names, devices, scripts } = JSON.parse(require("fs").readFileSync(0));
const accepts = (script, device) => {
  const variables = {};
  names.forEach((name, i) => { variables[name] = device[i]; });
  try { return vm.runInNewContext(script, variables) === true; } catch { return false; }
};
const answers = scripts.map((script) =>
  [script, devices.map((device) => accepts(script, device))]);
console.log(JSON.stringify(Object.fromEntries(answers)));
"""


def ask_node() -> dict[str, list[bool]] | None:
    """
    Have Node evaluate everything; C{None} without Node.
    """
    node = shutil.which("node")
    if node is None:
        return None
    asked = {"names": VARIABLES, "devices": DEVICES, "scripts": EXPRESSIONS}
    done = subprocess.run(
        [node, "-e", _PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers: dict[str, list[bool]] = json.loads(done.stdout)
    return answers


def recorded() -> dict[str, list[bool]]:
    """
    Give the answers of the last recording.
    """
    answers: dict[str, list[bool]] = json.loads(RECORDED.read_text())
    return answers


if __name__ == "__main__":
    values = ask_node()
    if values is None:
        raise SystemExit("Node.js is not installed")
    lines = (f" {json.dumps(one)}: {json.dumps(values[one])}" for one in values)
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
