#!/usr/bin/env python3
"""The dashboard in a real browser: headless Chromium, driven by real clicks through chromedriver (W3C WebDriver).

Usage: Tests/browser.py PROGRAM [FOLDER FOR SCREENSHOTS]
Needs chromium and chromedriver; uses nothing beyond Python's own library. Ends with 1 at the first thing that isn't right.
"""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
AGENT = r"""
cat > prompt
case $AIDEVOPS_TASK_ID in
hostile)
  printf '<script>window.pwned=1</script><b>bold</b>\nred \033[31mansi\033[0m\nright-to-left: \342\200\256evil\n'
  printf '\033[2J\007control\n'; cat prompt; echo
  printf '<img src=x onerror=window.pwned=1>\n' > '<b>file.txt'; git add .; git commit -qm '<script>window.pwned=1</script> subject'
  ;;
steps)
  echo '{"type":"assistant","message":{"content":[{"type":"text","text":"I will <b>look</b>."},{"type":"tool_use","id":"1","name":"Bash","input":{"command":"ls -la"}}]}}'
  echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"1","content":"README.md"}]}}'
  echo '{"type":"result","subtype":"success","is_error":false,"result":"Done.","total_cost_usd":0.0123}'
  ;;
long) i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo "line $i"; done; echo ready; while [ ! -e go ]; do sleep 0.05; done; echo "went on"; sleep 600;;
esac
echo TASK_COMPLETE
"""


class Failure(Exception):
    pass


def call(method, url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failure(f"{method} {url}: {error.code} {error.read().decode()[:500]}") from error


def eventually(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"it never came: {what}")
        time.sleep(0.05)


class Node:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]
        bare, seed = f"{folder}/remote/o/r.git", f"{folder}/seed"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", seed], check=True)
        with open(f"{seed}/README.md", "w") as file:
            file.write("# Seed\n")
        subprocess.run([*git, "-C", seed, "add", "."], check=True)
        subprocess.run([*git, "-C", seed, "commit", "-qm", "Begin"], check=True)
        subprocess.run(["git", "-C", seed, "push", "-q", bare, "main"], check=True)
        with open(f"{folder}/agent.sh", "w") as file:
            file.write(AGENT)
        os.makedirs(f"{folder}/data/config")
        with open(f"{folder}/data/config/worker.json", "w") as file:
            json.dump({
                "dispatch": {"auth_token": TOKEN, "allowed_repos": ["o/r"]}, "git": {"base_url": f"file://{folder}/remote"},
                "pulse": {"enabled": True, "interval_seconds": 3600},
                "worker": {"cancel_grace_seconds": 1, "ram_per_worker_mb": 1, "max_concurrent": 4},
                "agent": {"preset": "custom", "command": ["/bin/sh", f"{folder}/agent.sh"]},
            }, file)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.log = open(f"{self.folder}/log", "a")
        environment = {k: v for k, v in os.environ.items() if k not in ("PORT", "CLOUDRON", "GH_TOKEN")}
        self.process = subprocess.Popen(
            [self.program, "serve", "--port", str(self.port), "--data-dir", f"{self.folder}/data"],
            stdout=self.log, stderr=self.log, env=environment)
        eventually("the node's start", self.is_up)

    def is_up(self):
        try:
            return call("GET", f"{self.url}/health")
        except (OSError, Failure):
            return None

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)
        self.log.close()

    def task(self, name):
        return call("GET", f"{self.url}/workers/{name}", headers={"Authorization": f"Bearer {TOKEN}"})


class Browser:
    def __init__(self, folder):
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "successfully on port " in line:
                port = line.rsplit("on port ", 1)[1].strip().rstrip(".")
                break
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        session = call("POST", f"http://127.0.0.1:{port}/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": arguments, "prefs": {
                "download.default_directory": f"{folder}/downloads"}},
        }}})["value"]
        self.base = f"http://127.0.0.1:{port}/session/{session['sessionId']}"

    def close(self):
        try:
            call("DELETE", self.base)
        finally:
            self.driver.terminate()
            self.driver.wait(30)

    def do(self, method, path, body=None):
        return call(method, self.base + path, body)["value"]

    def go(self, url):
        self.do("POST", "/url", {"url": url})

    def find(self, selector):
        return list(self.do("POST", "/element", {"using": "css selector", "value": selector}).values())[0]

    def click(self, selector):
        self.do("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector, words):
        element = self.find(selector)
        self.do("POST", f"/element/{element}/clear", {})
        self.do("POST", f"/element/{element}/value", {"text": words})

    def script(self, code, *arguments):
        return self.do("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def shown(self, selector):
        return self.script("const e = document.querySelector(arguments[0]); return !!e && e.checkVisibility()", selector)

    def await_text(self, selector, words):
        return eventually(f"{words!r} in {selector}: {self.text(selector)[-300:]!r}", lambda: words in self.text(selector))

    def window(self, width, height):
        self.do("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.do("GET", "/screenshot")))

    def media(self, **features):
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {
            "features": [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]}}
        self.do("POST", "/goog/cdp/execute", command)

    def complaints(self):
        return [entry["message"] for entry in self.do("POST", "/se/log", {"type": "browser"}) if entry["level"] in ("SEVERE", "WARNING")]


def expect(condition, what):
    if not condition:
        raise Failure(what)
    print(f"  ok: {what}")


def choose_tab(browser, name):
    """Clicks until it's chosen: what ends meanwhile may move the page under the pointer."""
    def is_chosen():
        browser.click(f"#tab-{name}")
        return browser.script("return document.getElementById(arguments[0]).getAttribute('aria-selected')", f"tab-{name}") == "true"
    eventually(f"the tab {name}", is_chosen)


def open_task(browser, name):
    """By the button in whichever table has it."""
    eventually(f"{name} in a table", lambda: browser.script(
        "const b = [...document.querySelectorAll('td button')].find(b => b.textContent === arguments[0]); b?.click(); return !!b", name))
    browser.await_text("#task-title", name)


def dispatch(browser, name, prompt="Do it.", repo="o/r"):
    browser.type("#repo", repo)
    browser.type("#task_id", name)
    browser.type("#prompt", prompt)
    browser.click("#dispatch button")


def run(node, browser, shots):
    browser.window(1200, 900)
    browser.go(node.url)
    browser.await_text("#node-state", "ok")
    expect("workers 0 of 4" in browser.text("#figures"), "without a token the page shows how the node is")
    expect(not browser.shown("#tasks") and not browser.shown("#new-task"), "and no tasks")
    expect(browser.shown("#workers-chart polyline"), "and its charts")

    browser.type("#token", "wrong-token-wrong-token")
    browser.click("#sign-in button")
    browser.await_text("#sign-in-problem", "token")
    expect(not browser.shown("#tasks"), "a wrong token is refused, with the node's own sentence")
    browser.type("#token", TOKEN)
    browser.click("#sign-in button")
    eventually("the tasks", lambda: browser.shown("#tasks"))
    expect(TOKEN not in browser.script("return location.href + document.cookie + JSON.stringify(localStorage)"), "the token is in no URL, cookie or local storage")
    complaints = [words for words in browser.complaints() if "401" not in words]
    expect(complaints == [], f"no console error and no policy violation so far {complaints or ''}")

    dispatch(browser, "bad", repo="other/repo")
    browser.await_text('[data-field="repo"]', "allowed_repos")
    expect(True, "the node's error stands at the field that it's about")
    browser.complaints()

    dispatch(browser, "hostile", HOSTILE)
    browser.await_text("#log", "[EXIT:0]")
    log = browser.text("#log")
    expect("<script>window.pwned=1</script><b>bold</b>" in log and HOSTILE in log, "a hostile prompt and log show as text")
    expect("\x1b[31mansi" in log and "\u202eevil" in log, "control characters and right-to-left marks stay within their line")
    expect(browser.script("return document.querySelectorAll('#log script, #log b, #log img').length") == 0, "nothing of them is markup")
    choose_tab(browser, "changes")
    browser.await_text("#commits", "<script>window.pwned=1</script> subject")
    browser.await_text("#files", "<b>file.txt +1 -0")
    browser.await_text("#diff", "+<img src=x onerror=window.pwned=1>")
    expect(True, "the changes show commits, files and the diff as text")
    choose_tab(browser, "record")
    browser.await_text("#record", '"task_id": "hostile"')
    expect(browser.script("return window.pwned") is None, "and nothing of it ran")

    dispatch(browser, "steps")
    browser.await_text("#log", "[EXIT:0]")
    choose_tab(browser, "steps")
    browser.await_text("#steps", "calls Bash: ls -la")
    steps = browser.text("#steps")
    expect("says I will <b>look</b>." in steps and "gets README.md" in steps and "ends ($0.0123) Done." in steps, "an agent's events show as steps, with their cost")
    browser.click("#steps li summary")
    expect(browser.shown("#steps li code") and '"type":"assistant"' in browser.text("#steps li code"), "and raw, one click away")

    dispatch(browser, "long")
    browser.await_text("#log", "ready")
    browser.await_text("#active", "long")
    expect(browser.script("const l = document.querySelector('#log'); return l.scrollHeight - l.scrollTop - l.clientHeight < 8"), "the log follows its end")
    browser.script("document.querySelector('#log').scrollTop = 0")
    eventually("the pause", lambda: browser.shown("#to-end"))
    open(f"{node.folder}/data/workspace/tasks/long/worktree/go", "w").close()
    browser.await_text("#log", "went on")
    expect(browser.script("return document.querySelector('#log').scrollTop") == 0, "scrolling up pauses it")
    browser.click("#to-end")
    expect(browser.script("const l = document.querySelector('#log'); return l.scrollTop > 0"), "a button follows on")
    browser.type("#search", "LINE 29")
    browser.await_text("#matches", "11 found")
    expect(browser.script("return document.querySelectorAll('#log mark').length") == 11, "the log is searched")
    browser.script("const s = document.querySelector('#search'); s.value = ''; s.dispatchEvent(new Event('input'))")
    browser.click("#download")
    path = f"{node.folder}/downloads/long.log"
    eventually("the download", lambda: os.path.exists(path) and "went on" in open(path).read())
    expect(True, "the log is downloaded")
    if shots:
        browser.window(1200, 1900)
        browser.script("scrollTo(0, 0)")
        browser.screenshot(f"{shots}/light.png")
        browser.media(prefers_color_scheme="dark")
        browser.screenshot(f"{shots}/dark.png")
        browser.media(prefers_color_scheme="light")
        browser.window(400, 1900)
        browser.screenshot(f"{shots}/narrow.png")
    browser.window(400, 800)
    expect(browser.script("return document.documentElement.scrollWidth <= innerWidth"), "a narrow screen needs no sideways scrolling")
    browser.window(1200, 900)

    browser.click("#cancel")
    browser.await_text("#confirm-text", "Cancel long?")
    browser.click('#confirm button[value="no"]')
    expect(node.task("long")["state"] == "running", "a cancel asks first, and No leaves the task running")
    browser.click("#cancel")
    browser.click("#confirm-yes")
    browser.await_text("#log", "[EXIT:143]")
    eventually("the cancel", lambda: node.task("long")["state"] == "cancelled")
    browser.await_text("#task-facts", "cancelled")
    eventually("the empty list", lambda: browser.shown("#no-active"))
    expect(True, "Yes cancels it, and the page follows")

    browser.await_text("#past", "long")
    browser.script("document.querySelector('#filter-state').value = 'succeeded'")
    browser.click("#filter button")
    eventually("the filter", lambda: "long" not in browser.text("#past"))
    expect("hostile" in browser.text("#past") and "steps" in browser.text("#past"), "the history is filtered by state")
    open_task(browser, "steps")
    browser.await_text("#log", "[EXIT:0]")
    expect(True, "an ended task opens from the history")

    browser.await_text("#pulse-problems", "GH_TOKEN isn't set")
    expect("on" in browser.text("#pulse-state"), "the pulse's state and problems show")

    browser.script("document.querySelector('#tab-log').focus()")
    browser.do("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": [{"type": "keyDown", "value": "\ue014"}, {"type": "keyUp", "value": "\ue014"}]}]})
    expect(browser.script("return document.activeElement.id") == "tab-steps", "the tabs work by keyboard")
    complaints = browser.complaints()
    expect(complaints == [], f"no console error and no policy violation {complaints or ''}")

    node.stop(signal.SIGKILL)
    eventually("the lost connection", lambda: browser.shown("#connection"))
    node.start()
    eventually("the regained connection", lambda: not browser.shown("#connection"))
    expect("steps" in browser.text("#past"), "a lost connection is told, and regained")

    browser.do("POST", "/refresh", {})
    eventually("the tasks", lambda: browser.shown("#tasks"))
    expect(True, "a reload stays signed in")
    browser.click("#sign-out")
    expect(browser.shown("#sign-in") and not browser.shown("#tasks") and browser.script("return sessionStorage.length") == 0, "signing out forgets the token")


def main():
    program = os.path.abspath(sys.argv[1])
    shots = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    for needed in ("chromedriver", "git"):
        if not shutil.which(needed):
            sys.exit(f"{needed} isn't on PATH")
    with tempfile.TemporaryDirectory(prefix="aidevops-browser.") as folder:
        node = Node(program, folder)
        try:
            browser = Browser(folder)
            try:
                run(node, browser, shots)
            finally:
                browser.close()
        except Failure as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
        finally:
            node.stop()
    print("the dashboard works in a real browser")
    return 0


sys.exit(main())
