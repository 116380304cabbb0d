"""The live page in a real browser, before a real server that drives the real simulator."""

import json
import re
import shutil
import subprocess
import sys
import wave
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from small import small

from steersman.live import api
from steersman.training.fit import fit

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `dev`)")
pytest.importorskip("uvicorn", reason="the extra `live` is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (apt-get install chromium)")

DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
expect = playwright.expect
expect.set_options(timeout=15_000)  # Seconds on a machine with other work.


@contextmanager
def serving(folder, *options, run="steer"):
    """Runs the command and gives the address that it printed."""
    command = [sys.executable, "-m", "steersman", "live", run, "--no-open", "--port", "0", *options]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        yield next(line for line in server.stdout if line.startswith("live: ")).removeprefix("live: ").strip()
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("live")) as address:
        yield address


@pytest.fixture
def webcam(tmp_path):
    with serving(tmp_path, "--webcam") as address:
        yield address


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A translator that has learned next to nothing."""
    folder, recipe = tmp_path_factory.mktemp("translate"), small("translate")
    recipe = replace(recipe, training=replace(recipe.training, steps=4, warmup=1, validate_every=4))
    run = fit("translate", recipe, folder / "run", say=lambda text: None)
    with serving(folder, run=str(run.folder)) as address:
        yield address


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A file of two words with pauses, which the browser's microphone hears over and over."""
    file, rng = tmp_path_factory.mktemp("words") / "words.wav", np.random.default_rng(0)
    loud = rng.normal(0, 0.15, 4800)
    quiet = np.zeros(24_000)
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, 48_000, 0, "NONE", ""))
        sound.writeframes((np.concatenate((quiet, loud, quiet, loud)).clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    """A model of words that has learned next to nothing, on a page's microphone."""
    folder, recipe = tmp_path_factory.mktemp("listen"), small("listen")
    recipe = replace(recipe, training=replace(recipe.training, steps=4, warmup=1, validate_every=4))
    run = fit("listen", recipe, folder / "run", say=lambda text: None)
    with serving(folder, "--microphone", run=str(run.folder)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(words):
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-audio-capture={words}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, simulator):
    """Opens the page as often as asked for. At the end no page has seen an error or asked another host for anything."""
    contexts, wrong = [], []

    def open(address=simulator, prepare=lambda page: None, expected="\0", **options):
        context = browser.new_context(**{"viewport": DESK} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: said.type == "error" and expected not in said.text and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        home = re.match(r"http://[^/]+/", address)[0]
        page.on("request", lambda asked: asked.url.startswith(home) or wrong.append(asked.url))
        prepare(page)
        page.goto(address)
        expect(page.locator("#link")).to_have_text("Live")
        return page

    yield open
    for context in contexts:
        context.close()
    assert wrong == []


def frame(page) -> int:
    """The number of the frame that is shown."""
    expect(page.locator("#about")).to_contain_text("frame")
    return int(re.search(r"frame ([\d,]+)", page.inner_text("#about"))[1].replace(",", ""))


def frame_after(page, number: int) -> int:
    page.wait_for_function(
        "n => Number(document.querySelector('#about').textContent.match(/frame ([\\d,]+)/)[1].replaceAll(',', '')) > n",
        arg=number,
    )
    return frame(page)


def pixels(page, canvas: str) -> str:
    return page.evaluate("id => document.getElementById(id).toDataURL()", canvas)


def test_it_drives(opened):
    page = opened()
    number, before = frame(page), [pixels(page, name) for name in ("picture", "angle")]
    said = page.locator(".wheel .value").all_inner_texts()
    assert all(re.fullmatch(r"\d\.\d\d( left| right)?", value) for value in said)
    frame_after(page, number + 50)
    assert all(pixels(page, name) != past for name, past in zip(("picture", "angle"), before, strict=True))
    expect(page.locator(".wheel.model .value")).not_to_have_text(said[0])
    assert page.get_by_role("heading", level=1).inner_text() == "steer"
    assert float(page.inner_text("#median")) > 0
    seen = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 3)"
    alphas = page.eval_on_selector("#look", f"(c) => [...({seen})(c)]")
    assert max(alphas) > 100
    assert min(alphas) < 20
    assert page.locator("#belts canvas").count() == 3


def test_keys_take_the_wheel_and_what_is_driven_is_recorded(opened):
    page = opened()
    hands, driven = page.locator("#hands"), page.locator(".wheel.third .value")
    expect(hands).to_have_text("The model drives")
    page.keyboard.down("ArrowUp")
    page.keyboard.down("ArrowLeft")
    expect(hands).to_have_text("You drive")
    expect(driven).to_have_text("1.00 left")
    page.keyboard.up("ArrowLeft")
    expect(driven).to_have_text("0.00")
    page.keyboard.up("ArrowUp")
    expect(hands).to_have_text("The model drives")  # by itself, a second later
    page.keyboard.down("ArrowRight")
    expect(hands).to_have_text("You drive")
    page.keyboard.press("Escape")
    page.keyboard.up("ArrowRight")
    expect(hands).to_have_text("The model drives")
    expect(page.locator("#recorded")).to_have_text(re.compile(r"^[12] drives? recorded$"))
    expect(page.locator("#learn")).to_be_enabled()


def test_a_gamepad_takes_the_wheel(opened):
    pad = "({ id: 'a pad', mapping: 'standard', axes: [0.5], buttons: Array(8).fill({ value: 0 }) })"
    page = opened(prepare=lambda page: page.add_init_script(f"navigator.getGamepads = () => window.pad ? [{pad}] : []"))
    expect(page.locator("#hands")).to_have_text("The model drives")
    page.evaluate("window.pad = true")
    expect(page.locator(".wheel.third .value")).to_have_text("0.43 right")  # what is beyond the middle's dead zone
    page.evaluate("window.pad = false")
    expect(page.locator("#hands")).to_have_text("The model drives")


def opened_between(opened):
    """A page, and the two ends of each of its sockets: the page's and the server's."""
    ends = []

    def between(socket):
        ends.append((socket, socket.connect_to_server()))

    return opened(prepare=lambda page: page.route_web_socket("**/api/stage", between)), ends


def test_how_learning_goes_is_shown_until_new_weights_drive(opened):
    page, ends = opened_between(opened)
    to_page, _ = ends[0]
    for loss, text in ((None, "Getting ready"), (0.02, "step 120 of 400, loss 0.0200")):
        to_page.send(json.dumps({"type": "learning", "step": 120, "steps": 400, "loss": loss}))
        expect(page.locator("#learned-text")).to_have_text(text)
    expect(page.locator("#learn")).to_be_disabled()
    to_page.send('{"type": "swapped", "version": 2}')
    expect(page.locator("#learning")).to_be_hidden()
    expect(page.locator("#said")).to_have_text("New weights drive: version 2")


def test_a_reload_goes_on_where_the_stage_is(opened):
    page = opened()
    before = frame_after(page, frame(page) + 20)
    page.reload()
    assert "token" not in page.url
    assert before < frame(page) < before + 1000


def test_space_pauses_for_every_page_and_goes_on(opened):
    page, other = opened(), opened()
    page.keyboard.press("Space")
    for each in (page, other):
        expect(each.locator("#pause")).to_have_text("Go on")
    page.wait_for_timeout(300)
    still = frame(page)
    late = opened()
    expect(late.locator("#pause")).to_have_text("Go on")
    page.wait_for_timeout(300)
    assert frame(page) == still
    other.click("#pause")
    frame_after(page, still)
    expect(page.locator("#pause")).to_have_text("Pause")


def test_next_track(opened):
    page = opened()
    frame(page)
    before = int(re.search(r"track (\d+)", page.inner_text("#about"))[1])
    page.click("#restart")
    expect(page.locator("#about")).to_contain_text(f"track {before + 1}")


def test_everything_is_reached_and_worked_by_keyboard(opened):
    page = opened()
    frame(page)
    reached = {}
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.locator("*:focus")
        if focused.count():
            name, outline = focused.evaluate("(one) => [one.id || one.tagName, getComputedStyle(one).outlineStyle]")
            reached[name] = outline
    assert set(reached) >= {"help-open", "pause", "restart", "look-on", "take", "SUMMARY"}
    assert set(reached.values()) == {"solid"}
    page.focus("#look-on")
    page.keyboard.press("Space")
    expect(page.locator("#look")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.focus("summary")
    page.keyboard.press("Enter")
    expect(page.locator("#values tr")).to_have_count(7)


def test_a_phone_scrolls_down_alone_and_a_finger_on_the_picture_steers(opened):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    frame(page)
    page.locator("summary").click()
    expect(page.locator("#values tr")).to_have_count(7)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    small = "[...document.querySelectorAll('button')].filter((b) => b.offsetHeight && b.offsetHeight < 44).length"
    assert page.evaluate(small) == 0
    page.evaluate("scrollTo(0, 0)")
    finger = page.context.new_cdp_session(page)
    box = page.locator("#screen").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, aside in (("touchStart", 0), ("touchMove", -60)):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + aside, "y": y}]})
    expect(page.locator("#hands")).to_have_text("You drive")
    expect(page.locator(".wheel.third .value")).to_have_text(re.compile("left"))
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator("#hands")).to_have_text("The model drives")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_stands_out_in_light_and_dark(opened, scheme):
    page = opened(color_scheme=scheme)
    frame(page)
    paper = luminance(page, "body", "backgroundColor")
    assert (paper < 0.2) == (scheme == "dark")
    for name in ("body", "#about", "#facts dt", ".wheel .label"):
        assert contrast(luminance(page, name, "color"), paper) > 4.5, name
    assert contrast(luminance(page, "#hands", "color"), luminance(page, "#hands", "backgroundColor")) > 4.5


def luminance(page, selector: str, what: str) -> float:
    """Relative luminance as in WCAG 2."""
    found = page.eval_on_selector(selector, "(element, what) => getComputedStyle(element)[what]", what)
    shares = [int(part) / 255 for part in re.findall(r"\d+", found)[:3]]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


def test_who_wants_little_motion_sees_little(opened):
    page = opened(reduced_motion="reduce")
    frame(page)
    turned = """(wheel) => new Promise((done) => {
      let times = 0;
      new MutationObserver(() => times++).observe(wheel, { subtree: true, attributeFilter: ["transform"] });
      setTimeout(() => done(times), 1000);
    })"""
    assert page.eval_on_selector(".wheel.model", turned) <= 5


def test_a_lost_connection_is_told_with_its_reason_and_comes_back(opened):
    page, ends = opened_between(opened)
    to_page, _ = ends[0]
    before = frame(page)
    page.evaluate("""() => {
      window.told = [];
      const header = document.querySelector("header"), all = { subtree: true, childList: true };
      new MutationObserver(() => told.push(header.innerText)).observe(header, all);
    }""")
    to_page.send('{"type": "goodbye", "why": "a test"}')
    to_page.close()
    page.wait_for_function("() => told.some((text) => /A test\\s+trying again in \\d s/.test(text))")
    expect(page.locator("#link")).to_have_text("Live")
    frame_after(page, before)
    assert len(ends) == 2


def test_what_the_server_refuses_is_shown(opened):
    page, ends = opened_between(opened)
    _, to_server = ends[0]
    to_server.send('{"type": "record", "name": "x"}')
    expect(page.get_by_role("alert")).to_contain_text("no records to choose from: choose another")
    page.click("#notice-close")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_camera_of_the_page_is_what_the_model_sees(webcam, opened):
    page = opened(webcam)
    expect(page.locator("#waiting")).to_have_text("The model waits for your camera")
    page.click("#camera")
    number = frame(page)
    frame_after(page, number + 5)
    page.click("#camera")
    expect(page.locator("#camera")).to_have_text("Start the camera")
    page.wait_for_timeout(500)
    still = frame(page)
    page.wait_for_timeout(300)
    assert frame(page) == still


def test_a_microphone_of_the_page_is_heard_word_by_word(listener, opened):
    page = opened(listener)
    expect(page.locator("#listening")).to_contain_text("waits for your microphone")
    page.click("#microphone")
    expect(page.locator("#level")).to_be_visible()
    page.wait_for_function("() => document.querySelectorAll('#stream-text span').length > 1")
    expect(page.locator("#about")).to_contain_text("microphone \u00b7 word")
    assert set(page.locator("#stream-text span").all_inner_texts()) <= set("aeiou")
    page.click("#microphone")
    expect(page.locator("#microphone")).to_have_text("Start the microphone")
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') }",
         "The microphone was refused: allow it for this page"),
        ("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') }",
         "No microphone was found: plug one in and start it again"),
        ("AudioContext.prototype.createMediaStreamSource = () => { throw new DOMException('', 'NotSupportedError') }",
         "doesn't bring the microphone to 8000 samples a second: try another one"),
    ],
)  # fmt: skip
def test_what_keeps_a_microphone_from_being_heard_is_said(listener, opened, wrong, said):
    page = opened(listener)
    page.evaluate(f"() => {{ {wrong} }}")
    page.click("#microphone")
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.locator("#microphone")).to_have_text("Start the microphone")


def test_a_training_is_watched(opened):
    """What `train --watch` sends, by the description of the server's own messages."""
    hello = {"type": "hello", "run": "echo", "recipe": "echo", "source": "training", "wheel": False, "paused": False}
    hello |= {"targets": ["value"], "units": {}, "range": {}, "rate_hz": 50, "version": 1, "belts": [], "size": [0, 0]}
    hello |= {"records": None, "recorded": 0, "protocol": api.PROTOCOL, "panels": ["chart", "training"]}
    hello |= {"controls": {}, "main_target": None, "sound_hz": 0}
    assert set(hello) == set(api.FROM_STAGE["hello"]["properties"])
    sockets = []

    def instead(socket):
        sockets.append(socket)
        socket.send(json.dumps(hello))

    page = opened(prepare=lambda page: page.route_web_socket("**/api/stage", instead))
    empty = [pixels(page, name) for name in ("loss", "lag")]
    for step in range(0, 200, 10):
        event = {"type": "training", "step": step, "steps": 1000, "loss": 1 / (step + 1)}
        seldom = {"validation": 0.5, "lag": [0.5**lag for lag in range(16)]}
        event |= seldom if step % 50 == 0 else dict.fromkeys(seldom)
        sockets[0].send(json.dumps(event))
    expect(page.locator("#trained-text")).to_have_text("step 190 of 1,000, loss 0.00524")
    page.wait_for_timeout(200)
    assert all(pixels(page, name) != before for name, before in zip(("loss", "lag"), empty, strict=True))
    for name in ("#screen", "#over-time", "#gates", "#person", "#pause"):
        expect(page.locator(name)).to_be_hidden()


def modules(page) -> set[str]:
    """Of the page's scripts those that were loaded."""
    names = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name.split('/').at(-1))")
    return {name.removesuffix(".mjs") for name in names if name.endswith(".mjs")}


OF_A_CAR = {"wheels", "hands", "driving", "inputs", "controls"}


def test_a_text_is_answered_as_it_is_typed_with_where_the_model_looked(translator, opened):
    page = opened(translator)
    expect(page.locator("#text")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    with page.expect_response("**/api/say") as answered:
        page.keyboard.type("abc def?")  # A space or a question mark is a letter here, no command.
    said = answered.value.json()
    expect(page.locator("#answer-note")).to_contain_text("log-probability")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.inner_text("#answer-text").strip() == said["text"].strip()
    looked = said["attention"]
    expect(page.locator("#weights thead th")).to_have_count(len(looked["source"]))
    expect(page.locator("#weights tbody tr")).to_have_count(len(looked["target"]))
    heard = page.locator("#weights tbody tr").first.locator("td").all_inner_texts()
    assert heard == [f"{100 * weight:.0f} %" for weight in looked["weights"][0]]
    assert not modules(page) & {*OF_A_CAR, "picture", "training"}
    for name in ("#controls", "#screen", "#facts", "#all", "#person"):
        expect(page.locator(name)).to_be_hidden()


def test_a_text_that_is_typed_while_another_is_answered_is_answered_next(translator, opened):
    page = opened(translator, expected="409")
    busy = [409, 409]

    def answer(route):
        if busy:
            status, body = busy.pop(), {"error": "something is being said already", "do": "wait"}
        else:
            text = json.loads(route.request.post_data)["text"]
            status, body = 200, {"text": text.upper(), "pieces": [], "unknown": 1, "score": None, "attention": None}
        route.fulfill(status=status, json=body | {"latency_ms": 3})

    page.route("**/api/say", answer)
    page.fill("#text", "one")
    page.fill("#text", "one two")
    expect(page.locator("#answer-text")).to_have_text("ONE TWO")
    expect(page.locator("#answer-note")).to_have_text("3 ms \u00b7 1 piece of the text not known")
    expect(page.locator("#attention")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_where_it_looked_is_seen_in_light_and_dark(translator, opened, scheme):
    page = opened(translator, color_scheme=scheme)
    page.evaluate("""async () => {
      document.querySelector("#attention").hidden = false;
      const row = "<tr><th><span>a</span></th><td></td><td></td></tr>";
      document.querySelector("#weights").innerHTML = `<tbody>${row}</tbody>`;
      document.querySelectorAll("#weights td").forEach((cell, i) => cell.style.setProperty("--share", i));
    }""")
    none, all_ = (luminance(page, f"#weights td:nth-of-type({i})", "backgroundColor") for i in (1, 2))
    assert contrast(none, all_) > 4.5
    paper = luminance(page, "body", "backgroundColor")
    for name in ("#weights th span", "#answer-note", "#text-note", "#text"):
        assert contrast(luminance(page, name, "color"), paper) > 4.5, name


def test_scripts_of_a_car_are_loaded_where_a_car_is_driven(opened, webcam):
    page = opened()
    frame(page)
    assert modules(page) >= OF_A_CAR
    assert not modules(page) & {"texts", "stream", "training", "webcam"}


def test_a_world_that_is_no_car_is_shown_and_taken_over(opened):
    """What a server says of such a world, by the description of its own messages."""
    hello = {"type": "hello", "run": "swing", "recipe": "swing", "source": "simulator", "wheel": True, "paused": False}
    hello |= {"targets": ["torque"], "units": {}, "range": {"torque": [-2, 2]}, "main_target": "torque", "rate_hz": 20}
    hello |= {"sound_hz": 0}
    hello |= {"version": 1, "belts": [], "size": [0, 0], "records": None, "recorded": 0, "protocol": api.PROTOCOL}
    hello |= {"panels": ["controls", "chart", "hands"], "controls": {"torque": [-2, 2], "valve": [0, 1]}}
    assert set(hello) == set(api.FROM_STAGE["hello"]["properties"])
    moment = {"type": "moment", "n": 1, "time_s": 0, "record": "episode 7", "prediction": {"torque": 1}}
    moment |= {"said": {"torque": 1}, "truth": None, "driven": {"torque": -1, "valve": 0.25}, "hands": "person"}
    moment |= {"facts": {"speed_mps": 1.25, "angle_rad": 0.5, "state": "swinging", "up": False}, **api.FIRST}
    moment |= {"latency_ms": {"now": 1, "median": 1, "p99": 1}, "dropped": 0, "version": 1, "gates": None}
    moment |= {"picture_bytes": 0, "look_bytes": 0}
    assert api.check(moment, api.FROM_STAGE["moment"]) is None
    sockets, heard = [], []

    def instead(socket):
        sockets.append(socket)
        socket.on_message(lambda message: heard.append(json.loads(message)))
        socket.send(json.dumps(hello))

    page = opened(prepare=lambda page: page.route_web_socket("**/api/stage", instead))
    expect(page.locator("#restart")).to_have_text("Next episode")
    for event in (moment, moment | {"n": 2, "facts": moment["facts"] | {"up": True}}):
        header = json.dumps(event).encode()
        sockets[0].send(len(header).to_bytes(4, "little") + header)
    expect(page.locator("#said")).to_have_text("Up: episode 7")
    expect(page.locator("#said")).to_be_visible()
    facts = page.locator("#facts > div")
    for place, text in enumerate(("Speed 1.3 m/s", "Angle 0.50 rad", "State swinging", "Latency, median 1.0 ms")):
        expect(facts.nth(place)).to_have_text(re.compile(text.replace(" ", r"\s*")))
    expect(page.locator("#pedals")).to_contain_text("\N{MINUS SIGN}1.00")
    assert page.locator("#pedals progress").evaluate_all("(all) => all.map((one) => one.value)") == [0.25, 0.25]
    page.keyboard.down("ArrowRight")  # To the right is more, where nothing is steered.
    page.keyboard.down("ArrowUp")
    page.wait_for_timeout(700)
    page.keyboard.up("ArrowRight")
    page.keyboard.up("ArrowUp")
    controls = [api.command(one)["values"] for one in heard if one["type"] == "control"]
    assert max(one["torque"] for one in controls) > 1
    assert max(one["valve"] for one in controls) == 1
    assert "wheels" not in modules(page)


def test_numbers_are_read_as_they_are_meant(opened):
    page = opened()
    said = page.evaluate(
        """async () => {
          const { figure } = await import("/static/moments.mjs");
          const { Steering } = await import("/static/wheels.mjs");
          const { ticks } = await import("/static/plots.mjs");
          const units = { angle_rad: "rad, positive left" };
          const angle = new Steering({ main_target: "angle_rad", units, range: {} });
          const steer = new Steering({ main_target: "steer", units: {}, range: { steer: [-1, 1] } });
          return [
            [-0.001, 1234.5, 12.34, -0.5, null].map((value) => figure(value)),
            [0.5, -0.5, 0.0001].map((value) => angle.text(value)), angle.degrees(Math.PI),
            [1, -0.25, 0].map((value) => steer.text(value)), steer.degrees(-1),
            ticks(-1, 1, 4), ticks(0, 2000, 6),
          ];
        }"""
    )
    assert said == [
        ["0.00", "1,235", "12.3", "\N{MINUS SIGN}0.50", "\N{EN DASH}"],
        ["28.6\N{DEGREE SIGN} left", "28.6\N{DEGREE SIGN} right", "0.0\N{DEGREE SIGN}"], pytest.approx(180),
        ["1.00 left", "0.25 right", "0.00"], -135,
        [-1, -0.5, 0, 0.5, 1], [0, 500, 1000, 1500, 2000],
    ]  # fmt: skip
